"""Faults of a run and of its connections: what becomes of the operator, and other runs."""

import random
import signal
import socket
import time
from datetime import timedelta

from .faults import AFTER, BEFORE, COLUMNS, KILLED, LEASE, agreed, every, fault

NOW, DAY = timedelta(), timedelta(days=1)

# ---- the operator


@fault(at={**every(KILLED), "revert": KILLED, "clean": KILLED}, quick=("publish", "commit"))
def operator_killed(on, step):
    """SIGKILL of `fab deploy` as one host is about to begin the step, which it then does."""
    if step == "revert":
        return killed_on_its_way_back(on)
    run = on.held(step)
    run.send(signal.SIGKILL)
    run.end()
    on.go_on()
    return run


def killed_on_its_way_back(on):
    """Of a release that fails once it is live: each host goes back when the lease ends."""
    run = on.held("revert", way="crash-live", lease=LEASE)
    run.send(signal.SIGKILL)
    on.go_on()
    on.lease_over()
    return run.end()


@fault(at=every(130), quick=("publish", "commit"), says="interrupted")
def operator_interrupted(on, step):
    """Ctrl-C as one host is about to begin the step."""
    return signalled(on, step, signal.SIGINT)


@fault(at=every(130), says="interrupted")
def operator_terminated(on, step):
    """SIGTERM, as a machine that shuts down or a CI job that is cancelled sends it."""
    return signalled(on, step, signal.SIGTERM)


def signalled(on, step, number):
    run = on.held(step)
    run.send(number)
    return run.end()


@fault(at={**every(0, BEFORE), **every(7, AFTER), "commit": 0}, quick=("prove",))
def operator_frozen(on, step):
    """SIGSTOP for longer than the lease, then SIGCONT; nobody else deploys meanwhile."""
    run = on.held(step, lease=LEASE)
    run.send(signal.SIGSTOP)
    on.go_on()
    on.lease_over()
    run.send(signal.SIGCONT)
    return run.end()


@fault(at=every(9, ("stage", "migrate", "publish", "prove")), quick=("publish",),
       says="does not hold the lock", whole=False)
def operator_superseded(on, step):
    """SIGSTOP for longer than the lease, another `fab deploy` takes over, SIGCONT: the first
    changes nothing any more."""
    run = on.held(step, lease=LEASE)
    run.send(signal.SIGSTOP)
    on.go_on()
    on.lease_over()
    second = on.fab("deploy", code=0)
    taken = on.currents()
    run.send(signal.SIGCONT)
    run.end()
    agreed(taken == on.currents(), f"the fenced run changed what {second.code} had deployed")
    return run


@fault(at={"start": (KILLED, 0)}, whole=False)
def operator_killed_any_time(on, step):
    """Five runs, each killed at a random moment, if it has not ended by then."""
    for _ in range(5):
        run = on.start("deploy")
        time.sleep(random.uniform(0.3, 4))
        run.send(signal.SIGKILL)
        run.end()
    return run


@fault(at={"start": 6}, says="--deploy-date names a later one")
def operator_clock_ahead(on, step):
    """A deploy has a date of tomorrow, by its operator's clock; the next one, of today, is refused,
    and says how to go on: with a `--deploy-date` that is later."""
    on.ahead = DAY
    on.fab("deploy", code=0)
    on.ahead = NOW
    run = on.fab("deploy")
    on.ahead = DAY  # as the refusal says, until that day has come
    return run


# ---- other runs


@fault(at={"start": 0}, quick=("start",))
def two_runs_at_once(on, step):
    """Two `fab deploy` start together: one has the fleet, the other says who."""
    first, second = on.start("deploy"), on.start("deploy")
    winner, loser = sorted((first.end(), second.end()), key=lambda run: run.code)
    agreed(loser.code == 4 and "has it since" in loser.text, f"the other ended with {loser.code}")
    return winner


@fault(at={"start": 0}, rare=True)
def two_deploys_fifty_times(on, step):
    """The same fifty times, which takes five minutes: only where it is asked for."""
    for number in range(1, 51):
        winner = two_runs_at_once(on, step)
        agreed(winner.code == 0, f"pair {number}: none of the two succeeded\n{winner.text}")
    return winner


@fault(at={"start": 0}, whole=False)
def two_runs_that_overlap(on, step):
    """Two `fab deploy` of overlapping halves start together: each host has what one of them
    brought."""
    first = on.start("-x", on.hosts[0].name, "deploy")
    second = on.start("-x", on.hosts[-1].name, "deploy")
    winner, loser = sorted((first.end(), second.end()), key=lambda run: run.code)
    agreed(loser.code in (0, 4), f"the other ended with {loser.code}")
    return winner


# ---- the link


ASKED_AGAIN = every(0, ("stage", "migrate", "publish", "commit"))  # the host knows what it did


@fault(at={**every(5, BEFORE), **every(7, AFTER), **ASKED_AGAIN})
def link_cut_before(on, step):
    """The connection to one host is reset as it begins the step, which it goes on with alone."""
    on.arm(on.victim_at(step), "before", step, 'rm -f "$fault"; kill -9 $PPID\n')
    return on.fab("deploy")


@fault(at={**every(5, BEFORE), **every(7, AFTER), **ASKED_AGAIN}, quick=("publish",))
def link_cut_after(on, step):
    """The connection to one host is reset when it has done the step: the answer is lost."""
    on.arm(on.victim_at(step), "after", step, 'rm -f "$fault"; kill -9 $PPID\n')
    return on.fab("deploy")


@fault(at={**every(5, BEFORE), **every(8, (*AFTER, "commit"))}, quick=("publish",))
def host_silent(on, step):
    """A black hole: the connection to one host stays, and nothing comes back over it."""
    run = on.held(step, fleet_silence=4, fleet_connect_timeout=3)
    on.signal_sshd(on.victim_at(step), signal.SIGSTOP)
    on.go_on()
    return run.end()


@fault(at={"start": 5}, says="Connection refused")
def sshd_refuses(on, step):
    """A host's sshd is not there when the run starts."""
    on.stop_sshd(on.victim)
    return on.fab("deploy")


@fault(at={"start": 0})
def sshd_busy(on, step):
    """A host's sshd turns connections away for three seconds (MaxStartups)."""
    idle = [socket.create_connection((on.victim.private_dns, 2222)) for _ in range(8)]
    run = on.start("deploy")
    time.sleep(3)
    for connection in idle:
        connection.close()
    return run.end()


@fault(at={"start": 5}, says="the host key has CHANGED")
def host_key_changed(on, step):
    """A host shows another key than it had."""
    known = on.root / "known_hosts"
    text = known.read_text()
    lines = text.splitlines()
    keys = [line.partition(" ")[2] for line in lines]
    known.write_text("".join(f"{line.split()[0]} {key}\n" for line, key in
                             zip(lines, keys[1:] + keys[:1], strict=True)))
    try:
        return on.fab("deploy")
    finally:
        known.write_text(text)


@fault(at={"start": 0})
def login_noisy(on, step):
    """A login shell that greets on both of its outputs."""
    for name in (*COLUMNS, "preflight", "unlock"):
        on.arm(on.victim, "before", name, "echo 'Welcome! current -'; echo 'E: noise' >&2\n")
    return on.fab("deploy")
