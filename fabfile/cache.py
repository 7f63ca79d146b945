"""memcached, as the operator reaches it: flushed and proved to be, and its statistics."""

import re
import secrets

import memcache

from .env import env
from .errors import Failed, Unreachable, Usage
from .fleet import once

on_caches = {"roles": ["memcached"], "any_host": True}
NAME = r"[\w-]{1,63}(\.[\w-]{1,63})*\.?"  # what python-memcached takes without a port
SOON = 60  # seconds that a canary lives, should nobody remove it
FIGURES = {"cmd_flush", "curr_items", "get_hits", "cmd_get", "bytes", "limit_maxbytes",
           "evictions", "uptime", "version"}  # what every memcached tells of itself


class Server:
    """One memcached. Every question is asked of it alone, and an answer is an answer.

    Usage for a host whose address is none.
    """

    def __init__(self, host):
        if not re.fullmatch(NAME, env.address(host)):
            raise Usage(f"{host.name}: not a DNS name or an IPv4 address; the port is "
                        "cache.port in fabric.yml")
        self.place = f"{env.address(host)}:{env.cache.port}"
        timeout = env.cache.timeout
        self.client = memcache.Client([self.place], socket_timeout=timeout, dead_retry=0)

    def stats(self):
        """name → text. Unreachable if it refuses or is silent, Failed if it says something else."""
        try:
            found = self.client.get_stats()
        except OSError as error:
            raise Unreachable(f"memcached {self.place}: {error}") from error
        except (ValueError, IndexError):  # an answer that python-memcached can't take apart
            found = [(self.place, {})]
        if not found:
            raise Unreachable(f"memcached {self.place}: refused, or no answer within "
                              f"{env.cache.timeout} s")
        if FIGURES - found[0][1].keys():
            raise Failed(f"memcached {self.place}: answers without its statistics: it wants a "
                         "login, has no connection left, or is no memcached")
        return found[0][1]

    def flush(self):
        """Flushes and proves it: the counter of flushes rose and a canary is gone.

        Returns how many items it had and for how many flushes it counts. Failed if not proved.
        """
        before = self.stats()
        canary = f"fab-canary-{secrets.token_hex(8)}"
        if not self.client.set(canary, "1", time=SOON) or not self.client.get(canary):
            raise Failed(f"memcached {self.place}: takes no item, so a flush could not be proved")
        self.client.flush_all()
        after = self.stats()
        if int(after["cmd_flush"]) <= int(before["cmd_flush"]):
            raise Failed(f"memcached {self.place}: did not count a flush")
        if self.client.get(canary) is not None:
            raise Failed(f"memcached {self.place}: still has an item from before the flush")
        return before["curr_items"], after["cmd_flush"]


@once(**on_caches)
def clear_cache(fleet):
    """Flush memcached on each chosen host, and prove that it is empty."""
    servers = {host: Server(host) for host in fleet.hosts}
    outcomes = fleet.map(lambda host: servers[host].flush(), step="flush")
    rows = [
        (host.name, *(o.value or ("-", "-")), "flushed" if o.ok else o.state)
        for host, o in outcomes.items()
    ]
    fleet.table("", ("host", "items before", "flushes", ""), rows)
    outcomes.check()


@once(**on_caches)
def cache_stats(fleet):
    """Hit rate, items, memory and evictions of each memcached."""
    servers = {host: Server(host) for host in fleet.hosts}
    outcomes = fleet.map(lambda host: servers[host].stats(), step="stats")
    rows = [(host.name, *figures(o.value)) for host, o in outcomes.items() if o.value]
    columns = ("host", "hit rate", "items", "memory", "of", "evictions", "up", "version")
    fleet.table("", columns, rows)
    outcomes.check()


def figures(stats):
    """The columns of cache_stats from memcached's own statistics."""
    hits, asked = int(stats["get_hits"]), int(stats["cmd_get"])
    megabytes = [f"{int(stats[name]) / 2**20:.1f} MB" for name in ("bytes", "limit_maxbytes")]
    rate = f"{100 * hits / asked:.1f} %" if asked else "-"
    hours = f"{int(stats['uptime']) / 3600:.1f} h"
    return rate, stats["curr_items"], *megabytes, stats["evictions"], hours, stats["version"]
