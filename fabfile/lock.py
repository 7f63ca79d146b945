"""The lock on every host of a fleet: taken by the earlier of two runs, renewed, let go."""

import threading
import time
from contextlib import contextmanager

from .env import env
from .errors import Failed, Fenced, Locked
from .reply import Replies, Reply
from .run import is_dead, started, this_run

PATIENCE = 8  # seconds that the run which started first waits for the other one to let go


@contextmanager
def locked(releases):
    """Holds the lock on every host of `releases` until the end of the block, its lease renewed.

    Yields the Replies of taking it: `reverted TO FROM` from a host that found a switch which was
    never committed, and has just gone back. Locked if another run has a host.
    """
    quiet = releases.on(releases.fleet.quiet())
    over = threading.Event()
    beat = threading.Thread(target=renew, args=(quiet, over), daemon=True)
    try:
        taken = take(releases, quiet)
        count = len(releases.tokens)
        releases.fleet.say(f"lock       {count} host{'s' * (count != 1)}")
        beat.start()
        yield taken
    except Failed as error:
        fenced_off(quiet, error)
        raise
    finally:
        over.set()
        let_go(quiet)


def fenced_off(quiet, error):
    """Raises Fenced if a step failed because another run has taken the fleet over meanwhile."""
    failed = quiet.outcomes("renew", hosts=list(quiet.tokens)).failed.values()
    reasons = [str(outcome.stop()) for outcome in failed if outcome.kind is Fenced]
    if reasons:
        raise Fenced("\n".join(reasons)) from error


def take(releases, quiet):
    """Takes the lock everywhere. Of two runs that meet half-way, each with some of the hosts, the
    one that started first gets them all: it waits a little, and the later one lets go (wait-die).
    """
    taken, waiting_until = Replies(), time.monotonic() + PATIENCE
    while True:
        wanted = [host for host in releases.fleet.hosts if host not in taken]
        outcomes = ask(releases, quiet, wanted)
        for host, outcome in outcomes.items():
            if outcome.ok:
                taken[host] = Reply(outcome.stdout)
        held = {h: Reply(o.stdout) for h, o in outcomes.failed.items() if o.kind is Locked}
        if not held:
            outcomes.check()
            return taken
        may_wait = taken and is_first(held.values()) and time.monotonic() < waiting_until
        if not may_wait:
            raise Locked("\n".join(holder(host, reply) for host, reply in held.items()))
        time.sleep(0.2)


def ask(releases, quiet, hosts):
    """One try on each host; from a run that died on this very machine the lock is taken over."""
    outcomes = quiet.outcomes("lock", {"MIN_TOKEN": releases.next_token}, hosts=hosts)
    left = {h: Reply(o.stdout) for h, o in outcomes.failed.items() if o.kind is Locked}
    dead = {h: r.get("lock_token") for h, r in left.items() if is_dead(r.get("lock_run"))}
    if dead:
        releases.fleet.say("lock       its holder, a run on this machine, is dead: taking over")
        outcomes.update(quiet.outcomes("lock", lambda host: {"TAKE": dead[host]}, hosts=dead))
    for host, outcome in outcomes.items():
        if outcome.ok:
            releases.tokens[host] = Reply(outcome.stdout).get("token") or None
    return outcomes


def is_first(others):
    """Whether this run began before each of the holders."""
    return all(started(this_run()) < started(reply.get("lock_run")) for reply in others)


def holder(host, reply):
    """Who has a host, since when, doing what, and until when."""
    since = time.strftime("%H:%M:%S", time.localtime(int(reply.get("lock_since", "0"))))
    return (
        f"{host.name}: {reply.get('lock_owner')} has it since {since}: "
        f"{reply.get('lock_purpose')}; its lease ends in {reply.get('lock_until')} s "
        "unless it is renewed (fab unlock takes it away)"
    )


def renew(quiet, over):
    """Renews the lease at a third of its time, until the run is over."""
    while not over.wait(env.deploy.lease / 3):
        quiet.outcomes("renew", hosts=list(quiet.tokens), deadline=env.deploy.lease)


def let_go(quiet):
    """Unlocks what this run holds; a host that can't be told is free as the lease ends."""
    if quiet.tokens:
        quiet.outcomes("unlock", hosts=list(quiet.tokens))
        quiet.tokens.clear()
