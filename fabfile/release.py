"""The operator's side of release.sh: what its arguments mean, what it answers, and the lock.

One Releases stands for one folder of releases (the application's, nginx's …) on a fleet's hosts.
"""

import getpass
import os
import socket
import threading
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from .env import env
from .errors import BY_CODE, Locked, Refused, Unreachable
from .fleet import called
from .shell import assignments, line

SCRIPT = Path(__file__).with_name("release.sh")
SHA256 = sha256(SCRIPT.read_bytes()).hexdigest()
REMOTE = f".fab/release-{SHA256[:12]}.sh"
NO_SCRIPT = "script missing"
UPLOAD = line(
    'mkdir -p .fab && cat > {0}.$$ && [ "$(sha256sum < {0}.$$)" = {1} ] && mv {0}.$$ {0}'
    .replace("{0}", REMOTE).replace("{1}", "{}"),
    f"{SHA256}  -",
)
PATIENCE = 8  # seconds that the run which started first waits for the other one to let go


class Reply:
    """The `key value` lines that a verb answered."""

    def __init__(self, text=""):
        self.lines = [tuple((entry + " ").split(" ", 1)) for entry in text.splitlines()]

    def all(self, key):
        """Every value given for `key`, in order."""
        return [value.strip() for name, value in self.lines if name == key]

    def get(self, key, default=""):
        """The last value given for `key`."""
        return (self.all(key) or [default])[-1]

    def date(self, key):
        """A release's date, or None where the host says `-` or nothing."""
        value = self.get(key, "-").split(" ")[0]
        return None if value == "-" else value


class Replies(dict):
    """host → Reply."""

    def dates(self, key):
        """host → the release's date given for `key`, or None."""
        return {host: reply.date(key) for host, reply in self.items()}


class Releases:
    """Verbs of release.sh on each host of a fleet; the lock's token goes with every one of them."""

    next_token = None

    def __init__(self, fleet, deploy_to, purpose="", *, per_host=lambda host: {}):
        self.fleet = fleet
        self.tokens = {}
        self.per_host = per_host
        self.common = {
            "SCRIPT_SHA256": SHA256,
            "DEPLOY_TO": deploy_to,
            "OWNER": owner(),
            "PURPOSE": purpose,
            "RUN": this_run(),
            "LEASE": env.deploy.lease,
        }

    def on(self, fleet):
        """The same releases, lock and token, for fewer hosts."""
        fewer = Releases.__new__(Releases)
        fewer.__dict__ = {**self.__dict__, "fleet": fleet}
        return fewer

    def call(self, verb, values=None, *, step=None, stdin=None, hosts=None, deadline=None):
        """One verb on each host; `values` is a mapping or host → mapping. Replies.

        Raises the Stop that a host's exit status stands for, naming the hosts.
        """
        outcomes = self.outcomes(verb, values, step=step, stdin=stdin, hosts=hosts,
                                 deadline=deadline)
        return replies(outcomes.check())

    def outcomes(self, verb, values=None, *, step=None, stdin=None, hosts=None, deadline=None):
        """The same as the fleet's Outcomes, for those who look at failures themselves.

        A host that has another script, or none, gets this one and is asked again.
        """
        hosts = self.fleet.hosts if hosts is None else tuple(hosts)
        step = verb if step is None else step

        def command(host):
            more = self.per_host(host) | (called(values, host) or {})
            return self.command(verb, {**self.common, "TOKEN": self.tokens.get(host), **more})

        def run(hosts):
            return self.fleet.run(command, hosts=hosts, step=step, stdin=stdin, deadline=deadline)

        outcomes = run(hosts)
        lacking = [host for host, o in outcomes.items() if o.stdout.rstrip().endswith(NO_SCRIPT)]
        if lacking:
            self.fleet.run(UPLOAD, hosts=lacking, step="upload", stdin=SCRIPT).check()
            outcomes.update(run(lacking))
        for outcome in outcomes.failed.values():
            outcome.kind = BY_CODE.get(outcome.code, outcome.kind)
        return outcomes

    @staticmethod
    def command(verb, values):
        """The exact command of a verb; it says so where the host lacks this very script."""
        lacking = f"{{ echo {NO_SCRIPT}; exit; }}"
        return (
            f"[ -f {REMOTE} ] || {lacking}; {assignments(values)} sh {REMOTE} {verb}; s=$?; "
            f"[ $s != 20 ] || {lacking}; exit $s"
        )

    @contextmanager
    def locked(self):
        """Holds the lock on every host, its lease renewed, until the end of the block.

        Locked if another run has a host. Yields the Replies: `reverted TO FROM` where a dead run
        had switched and never committed, and the host has just gone back.
        """
        taken = self.lock()
        stop = threading.Event()
        beat = threading.Thread(target=self._renew, args=(stop,), daemon=True)
        beat.start()
        try:
            yield taken
        finally:
            stop.set()
            beat.join()
            self.unlock()

    def lock(self):
        """Takes the lock everywhere. Of two runs that meet, the one that started first gets it:
        it waits a little, and the later one lets go (wait-die).
        """
        waiting_until = time.monotonic() + PATIENCE
        while True:
            outcomes = self._take_lock()
            held = [replies({h: o})[h] for h, o in outcomes.failed.items() if o.code == 4]
            if not held:
                return replies(outcomes.check())
            first = all(started(this_run()) < started(reply.get("lock_run")) for reply in held)
            if not first or time.monotonic() > waiting_until:
                self.unlock()
                raise Locked(self._holders(outcomes.failed))
            time.sleep(0.5)

    def _take_lock(self):
        wanted = [host for host in self.fleet.hosts if host not in self.tokens]
        outcomes = self.outcomes("lock", {"MIN_TOKEN": self.next_token}, hosts=wanted)
        dead = {}
        for host, outcome in outcomes.failed.items():
            reply = Reply(outcome.stdout)
            if outcome.code == 4 and is_dead(reply.get("lock_run")):
                dead[host] = reply.get("lock_token")
        if dead:
            self.fleet.say("lock: its holder, a run on this machine, is dead: taking over")
            outcomes.update(self.outcomes("lock", lambda host: {"TAKE": dead[host]}, hosts=dead))
        for host, outcome in outcomes.items():
            if outcome.ok:
                self.tokens[host] = Reply(outcome.stdout).get("token") or None
        return outcomes

    def _holders(self, failed):
        """Who has the fleet, one line a host."""
        lines = []
        for host, outcome in failed.items():
            reply = Reply(outcome.stdout)
            since = time.strftime("%H:%M:%S", time.localtime(int(reply.get("lock_since", "0"))))
            lines.append(
                f"{host.name}: {reply.get('lock_owner')} has it since {since}: "
                f"{reply.get('lock_purpose')}; its lease ends in {reply.get('lock_until')} s "
                "unless it is renewed (fab unlock takes it away)"
            )
        return "\n".join(lines)

    def unlock(self):
        """Lets go of what this run holds; a host that can't be told is free as the lease ends."""
        if self.tokens:
            quiet = self.on(self.fleet.quiet())
            quiet.outcomes("unlock", hosts=list(self.tokens))
            self.tokens.clear()

    def _renew(self, stop):
        quiet = self.on(self.fleet.quiet())
        while not stop.wait(env.deploy.lease / 3):
            quiet.outcomes("renew", hosts=list(self.tokens), deadline=env.deploy.lease)

    def preflight(self):
        """What each host has. Refused, naming all, where one is not fit for a change."""
        found = self.call("preflight")
        self.next_token = 1 + max((int(r.get("token", "0")) for r in found.values()), default=0)
        problems = [
            f"{host.name}: {problem}" for host, reply in found.items() for problem in unfit(reply)
        ]
        if problems and not env.dry:
            raise Refused("\n".join(problems))
        return found

    def stage(self, artifact):
        """Sends the artifact to every host, where it is unpacked and verified."""
        facts = {
            "DATE": env.deploy_date,
            "MANIFEST_SHA256": artifact.manifest_sha256,
            "ARTIFACT": artifact.sha256,
            "REVISION": artifact.revision,
        }
        return self.call("stage", facts, stdin=artifact.path)

    def publish(self, date):
        """Switches every host to `date`. Replies with `switched EPOCH`; the skew is theirs."""
        return self.call("publish", {"DATE": date})

    def commit(self, date):
        """Makes the switch stay; asked twice where the first answer was lost."""
        outcomes = self.outcomes("commit", {"DATE": date})
        lost = [host for host, o in outcomes.failed.items() if o.kind is Unreachable]
        if lost:
            outcomes.update(self.outcomes("commit", {"DATE": date}, hosts=lost))
        return replies(outcomes.check())

    def revert(self):
        """Every host that switched goes back. Outcomes, whatever they are."""
        return self.outcomes("revert")


def replies(outcomes):
    """The Replies in Outcomes."""
    return Replies({host: Reply(outcome.stdout) for host, outcome in outcomes.items()})


def unfit(reply):
    """Why a host is not fit for a change, from its preflight: sentences with the remedy."""
    if reply.get("setup") == "no":
        yield "not set up: run `fab setup`"
    for path in reply.all("foreign"):
        yield f"{path} was not made by this toolkit: move it away first"
    for path in reply.all("missing"):
        yield f"shared {path} is missing: `fab put_shared FILE --name {path}` puts it there"


def skew(published):
    """Seconds between the first and the last switch of a publish, by the hosts' own clocks."""
    moments = [float(r.get("switched", "0")) for r in published.values() if r.get("switched")]
    return max(moments, default=0) - min(moments, default=0)


def owner():
    """Who runs this: user@machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def this_run():
    """This process, for others on the same machine to tell whether it lives:
    machine:pid:start:moment, the start in the kernel's ticks, the moment in nanoseconds.
    """
    return f"{_machine()}:{os.getpid()}:{_start_of(os.getpid())}:{STARTED}"


STARTED = time.time_ns()


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
