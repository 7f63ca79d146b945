"""Faults of a host: its power, its disk, its clock; of what it is sent, and of the release."""

import os
import signal
import subprocess

from .faults import AFTER, BEFORE, KILLED, agreed, every, fault
from .processes import wait_for
from .stepping import VALUES, kill_everywhere

# ---- the host


@fault(at={"stage": 5, "publish": 8, "prove": 8, "commit": 8}, quick=("publish",))
def host_dead(on, step):
    """A host loses its power as it is about to begin the step; it is back after the run."""
    run = on.held(step)
    on.power_off(on.victim)
    return run.end()


@fault(at={"start": 0}, whole=False)
def host_missed_a_deploy(on, step):
    """A host is dead during a deploy of the others; then it is back."""
    on.power_off(on.victim)
    return on.fab("--skip-bad-hosts", "deploy")


@fault(at={**every(1, BEFORE), **every(7, AFTER), "commit": 0}, quick=("commit",))
def shell_killed_before(on, step):
    """The step's shell on one host is killed, as the kernel does when memory is short."""
    on.arm(on.victim_at(step), "before", step, 'rm -f "$fault"; kill -9 $$\n')
    return on.fab("deploy")


@fault(at={**every(1, BEFORE), **every(7, AFTER), "commit": 0})
def shell_killed_after(on, step):
    """The same when the step is done and its answer is not yet given."""
    on.arm(on.victim_at(step), "after", step, 'rm -f "$fault"; kill -9 $$\n')
    return on.fab("deploy")


FULL = """cd {place} && cat /dev/zero >filler; truncate -s -{room} filler; cd "$HOME"\n"""
NO_INODES = """mkdir -p {place}/fillers; seq 5000 | (cd {place}/fillers && xargs touch)\n"""
READ_ONLY = """mount --bind {place} {place} && mount -o remount,bind,ro {place}\n"""


@fault(at={"lock": 1, "stage": 1, "publish": 7, "commit": 8}, quick=("stage",),
       needs="small_disk")
def disk_full(on, step):
    """A host's disk has 8 KB left as it unpacks, none as it writes its state."""
    return disk(on, step, FULL.replace("{room}", "8K" if step == "stage" else "0"))


@fault(at={"lock": 1, "stage": 1, "publish": 7, "commit": 8}, needs="small_disk")
def inodes_exhausted(on, step):
    """A host's disk takes no new file."""
    return disk(on, step, NO_INODES)


@fault(at={"lock": 1, "stage": 1, "publish": 8, "commit": 8}, needs="small_disk")
def disk_read_only(on, step):
    """A host's disk is read-only, as after an error."""
    return disk(on, step, READ_ONLY)


def disk(on, step, text):
    place = f'"{on.place(on.victim)}"'
    on.arm(on.victim, "before", step, 'rm -f "$fault"\n' + text.replace("{place}", place))
    return on.fab("deploy")


@fault(at={"start": 0})
def clocks_a_day_apart(on, step):
    """A host's clock is a day ahead of all others."""
    on.shim(on.victim, "date", "exec /usr/bin/date -d '+1 day' \"$@\"")
    return on.fab("deploy")


@fault(at={"trial": 1, "prove": 8}, needs="cache", says="does not answer")
def memcached_down(on, step):
    """A memcached ends as a host comes to the step: the release is unwell, as is the one before.
    The stand-in asks a real one wherever its health is asked for; visitors get their page."""
    run = on.held(step, prove_trial=3, prove_health=3)
    on.end_cache()
    on.go_on()
    return run.end()


@fault(at={"clean": 0}, whole=False)
def old_release_in_use(on, step):
    """A process of a host works in an old release as `clean` with `keep: 1` would take it: it
    stays, and the process is named; at the next deploy after the end of that process it goes."""
    old = on.place(on.victim) / "releases" / on.current(on.victim)
    only = "-H", on.victim.name, "deploy"
    with subprocess.Popen(["tail", "-f", "stamp"], cwd=old, stdout=subprocess.DEVNULL) as task:
        try:
            on.fab(*only, code=0, keep=1)
            text = on.fab(*only, code=0, keep=1).text
        finally:
            task.kill()
    agreed(old.exists() and f" {old.name} pid {task.pid} tail" in text,
           f"{old.name} was in use: it is gone, or nothing is said of it\n{text}")
    run = on.fab(*only, keep=1)
    agreed(not old.exists(), f"{old.name} is not in use any more, but is still here\n{run.text}")
    return run


def rolled_back(on, between):
    """A deploy, then what comes `between`, then a rollback: to the release before."""
    before = on.currents()
    on.fab("deploy", code=0)
    between()
    run = on.fab("rollback")
    agreed(on.currents() == before, "the rollback went to another release than that before")
    return run


@fault(at={"start": 0}, whole=False)
def mtimes_touched(on, step):
    """Somebody has touched all releases of a host: the newest look oldest. Then a rollback."""
    def touch():
        for number, path in enumerate(sorted((on.place(on.victim) / "releases").iterdir())):
            os.utime(path, (0, 1_600_000_000 - number))

    return rolled_back(on, touch)


@fault(at={"start": 6}, says="hosts disagree")
def hosts_of_different_releases(on, step):
    """A rollback where one host has missed the last deploy: refused, with what each has."""
    on.fab("-x", on.victim.name, "deploy", code=0)
    return on.fab("rollback")


@fault(at=every(KILLED, tuple(VALUES)), alone="kills of release.sh",
       quick=("lock", "stage", "publish", "commit", "revert", "clean"))
def verb_killed(on, step):
    """A host's `release.sh` killed between any two of its steps, at every one of them: the next run
    takes the lock, finds one whole release, and gets through."""
    return kill_everywhere(step)


# ---- what travels


@fault(at={"stage": 0}, quick=("stage",), says="is sent the whole artifact")
def stream_cut_short(on, step):
    """What is sent to a host ends too early, once."""
    on.arm(on.victim, "before", step, DAMAGED.format("head -c 200"))
    return on.fab("deploy")


@fault(at={"stage": 0}, says="is sent the whole artifact")
def stream_bit_flipped(on, step):
    """A byte of what is sent to a host is another one, once."""
    flip = "{ head -c 500; head -c 1 | tr '\\0-\\377' '\\1-\\377\\0'; cat; }"  # past gzip's header
    on.arm(on.victim, "before", step, DAMAGED.format(flip))
    return on.fab("deploy")


@fault(at={"stage": 1})
def stream_always_damaged(on, step):
    """The same, each time."""
    damage = DAMAGED.replace('rm -f "$fault"\n', "").format("head -c 200")
    on.arm(on.victim, "before", step, damage)
    return on.fab("deploy")


DAMAGED = 'rm -f "$fault"\n{} | "$SHELL" -c "$command"\nexit\n'

# ---- the release


@fault(at={"trial": 1}, quick=("trial",), says="fails on purpose")
def release_that_cannot_start(on, step):
    """Code that crashes at import: found before anybody has seen it."""
    return on.fab("deploy", way="crash")


@fault(at={"prove": 7}, quick=("prove",), says="every host is back")
def release_that_fails_once_live(on, step):
    """Code that starts in its trial, and crashes where it is live."""
    return on.fab("deploy", way="crash-live")


@fault(at={"prove": 7}, says="every host is back", seen=True)
def release_that_sickens(on, step):
    """Code that is well when it is proved, and answers 500 soon after: `prove.watch` sees it."""
    return on.fab("deploy", way="sicken", prove_watch=12)


@fault(at={"migrate": 1}, says="failed on purpose")
def migration_fails(on, step):
    """A migration that fails half-way: nothing is switched."""
    return on.fab("deploy", way="half-migrated")


@fault(at={"migrate": KILLED})
def migration_left_behind(on, step):
    """SIGKILL of `fab deploy` while a migration is at work, which goes on: the next run's waits."""
    run = on.start("deploy", way="slowly-migrated")
    at_work = on.place(on.victim_at(step)) / "shared/migrating"
    agreed(wait_for(at_work.exists, 60), "no migration has begun")
    run.send(signal.SIGKILL)
    return run.end()


@fault(at={"prove": 7}, says="not 2")
def restart_without_effect(on, step):
    """A host's service manager starts the old path again: its processes say so."""
    on.shim(on.victim, "supervisorctl", "exit 0")
    return on.fab("deploy")


@fault(at={"start": 0}, whole=False)
def ten_failed_deploys(on, step):
    """Ten deploys that fail in their migration, then a rollback: to the release before."""
    def fail():
        for _ in range(10):
            on.fab("deploy", code=1, way="half-migrated")

    return rolled_back(on, fail)


@fault(at={"start": 1}, needs="balancers")
def nginx_refuses(on, step):
    """`nginx -t` fails on one host: `deploy_nginx` switches none."""
    on.shim(on.balancers[-1], "nginx", "echo 'nginx: refused on purpose' >&2; exit 1")
    return on.fab("deploy_nginx")
