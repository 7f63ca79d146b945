"""What a fault is, and all that a rehearsal injects: faults_of_runs.py and faults_of_hosts.py add
theirs. Their docstrings are in docs/faults.md.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from .errors import Failed

BEFORE = ("lock", "stage", "trial", "migrate")  # nothing has been switched yet
AFTER = ("publish", "restart", "prove")
STEPS = (*BEFORE, *AFTER, "commit")
COLUMNS = ("start", *STEPS, "revert", "clean", "unlock", "setup")
KILLED = -signal.SIGKILL
LEASE = 6  # seconds, where a fault waits for the end of one
FAULTS = {}


@dataclass(frozen=True, eq=False)
class Fault:
    """`inject(rehearsal, step)` gives the Run that is judged; it ends with one of `codes[step]`.
    `quick`: the steps of the quick set. `whole`: a run that ends well had the whole fleet.
    """

    inject: Callable
    codes: dict
    quick: tuple = ()
    says: str = ""  # what the run has to print
    whole: bool = True
    needs: str = ""  # what there has to be: a property of Rehearsal
    seen: bool = False  # visitors meet it until it is gone
    alone: str = ""  # it befalls no deploy: what `inject` gives the number of
    rare: bool = False  # only where it is asked for

    @property
    def name(self):
        return self.inject.__name__

    @property
    def what(self):
        """What it does, in one line."""
        return " ".join(self.inject.__doc__.split())


def fault(*, at=(), quick=(), **rest):
    """Adds a function to FAULTS. `at`: step → the exit code, or the codes, of the deploy."""

    def add(inject):
        codes = {step: code if isinstance(code, tuple) else (code,) for step, code in at.items()}
        FAULTS[inject.__name__] = Fault(inject, codes, quick, **rest)
        return inject

    return add


def every(code, steps=STEPS):
    """The same exit code at each step."""
    return dict.fromkeys(steps, code)


def agreed(condition, text):
    """Failed where something that must hold does not."""
    if not condition:
        raise Failed(text)
