"""This run among others: who it is, when it began, and whether another one still lives."""

import os
import socket
import time
from pathlib import Path

STARTED = time.time_ns()


def this_run():
    """This process, for others on the same machine to tell whether it lives:
    machine:pid:start:moment, the start in the kernel's ticks, the moment in nanoseconds.
    """
    return f"{_machine()}:{os.getpid()}:{_start_of(os.getpid())}:{STARTED}"


def started(run):
    """The moment a run began, from its RUN; one that can't be read began before all others."""
    moment = run.rpartition(":")[2]
    return int(moment) if moment.isdigit() else 0


def is_dead(run):
    """Whether a RUN was a process of this very machine that is gone."""
    machine, _, rest = run.partition(":")
    pid, _, rest = rest.partition(":")
    return machine == _machine() and pid.isdigit() and _start_of(pid) != rest.partition(":")[0]


def _machine():
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip()}" if boot.exists() else "elsewhere"


def _start_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "gone"
