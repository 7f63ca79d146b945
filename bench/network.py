"""A network of its own for a bench: any address is free, and a link is as slow as wanted."""

import os
import sys

INSIDE = "BENCH_NETWORK"
UP = "ip link set lo up"
# The burst is more than one packet of the loopback; what waits for half a second is dropped.
SLOW = "tc qdisc add dev lo root tbf rate {}mbit burst 256kb latency 500ms"


def in_a_network_of_its_own(megabits=None):
    """Starts this program again in one, which takes root; all links together carry `megabits` a
    second, if it is given.
    """
    if inside():
        return
    if os.getuid():
        sys.exit("a network of its own takes root: sudo bin/bench …")
    shape = f"{UP} && {SLOW.format(megabits)}" if megabits else UP
    again = [sys.executable, "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]]
    os.execvpe("unshare", ["unshare", "--net", "sh", "-c", f'{shape} && exec "$@"', "sh", *again],
               {**os.environ, INSIDE: "1"})


def inside():
    """Whether this program is in a network of its own."""
    return INSIDE in os.environ
