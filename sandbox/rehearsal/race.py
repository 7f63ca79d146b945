"""A run that races another one for the lock, time after time: `fab --collection race race`."""

import sys
import time

from fabfile import lock, run
from fabfile.application import on_app_hosts
from fabfile.env import env
from fabfile.errors import Locked
from fabfile.release import Releases


@on_app_hosts
def race(fleet, patience=lock.PATIENCE):
    """At each line of its input it tries as a run that begins now; it says how it fared, and what
    it has got it keeps until the next line.
    """
    lock.PATIENCE = patience
    for _ in sys.stdin:
        run.STARTED = time.time_ns()
        releases = Releases(fleet.quiet(), env.deploy.deploy_to, "a race")
        try:
            with lock.locked(releases):
                answer("won")
                sys.stdin.readline()
        except Locked as error:
            answer(" ".join(str(error).split()))
            sys.stdin.readline()
        answer("over")


def answer(text):
    print(text, flush=True)
