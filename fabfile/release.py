"""The operator's side of release.sh: what its arguments mean, what it answers, and the lock.

One Releases stands for one folder of releases (the application's, nginx's …) on a fleet's hosts.
"""

import getpass
import socket
from hashlib import sha256
from pathlib import Path

from .env import env
from .errors import BY_CODE, Failed, Fenced, Interrupted, Refused, Unreachable
from .fleet import Outcomes, called
from .reply import Reply, replies
from .run import this_run
from .shell import assignments, line

SCRIPT = Path(__file__).with_name("release.sh")
SHA256 = sha256(SCRIPT.read_bytes()).hexdigest()
REMOTE = f".fab/release-{SHA256[:12]}.sh"
NO_SCRIPT = "script missing"
REPEATABLE = ("wheels", "stage", "command", "commit", "revert")
UPLOAD = line(
    'mkdir -p .fab && cat > {0}.$$ && [ "$(sha256sum < {0}.$$)" = {1} ] && mv {0}.$$ {0}'
    .replace("{0}", REMOTE).replace("{1}", "{}"),
    f"{SHA256}  -",
)


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
            "OWNER": f"{getpass.getuser()}@{socket.gethostname()}",
            "PURPOSE": purpose,
            "RUN": this_run(),
            "LEASE": env.deploy.lease,
        }

    def begin(self, purpose, resume=None):
        """What the locks say this run does; a pending switch to the release `resume` stays."""
        self.common |= {"PURPOSE": purpose, "RESUME": resume}

    def on(self, fleet):
        """The same releases, lock and token, for fewer hosts."""
        fewer = Releases.__new__(Releases)
        fewer.__dict__ = {**self.__dict__, "fleet": fleet}
        return fewer

    def call(self, verb, values=None, **settings):
        """One verb on each host; `values` is a mapping or host → mapping. Replies.

        Raises the Stop that a host's exit status stands for, naming the hosts.
        """
        return replies(self.outcomes(verb, values, **settings).check())

    def outcomes(self, verb, values=None, *, hosts=None, step=None, together=False, **settings):
        """The same as the fleet's Outcomes, for those who look at failures themselves.

        A host that has another script, or none, gets this one and is asked again; so is one whose
        link was cut, where the script can tell what it has done already.
        """
        hosts = self.fleet.hosts if hosts is None else tuple(hosts)
        step = verb if step is None else step
        way = self.fleet.run_together if together else self.fleet.run

        def command(host):
            more = self.per_host(host) | (called(values, host) or {})
            return self.command(verb, {**self.common, "TOKEN": self.tokens.get(host), **more})

        def run(hosts):
            return way(command, hosts=hosts, step=step, **settings)

        outcomes = run(hosts)
        lacking = [host for host, o in outcomes.items() if o.stdout.rstrip().endswith(NO_SCRIPT)]
        if lacking:
            self.fleet.run(UPLOAD, hosts=lacking, step="upload", stdin=SCRIPT).check()
            outcomes.update(run(lacking))
        lost = [host for host, o in outcomes.failed.items() if o.kind is Unreachable]
        if lost and verb in REPEATABLE:
            outcomes.update(run(lost))
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

    def stage(self, built):
        """Sends each host its Artifact, of a mapping, where it is unpacked and verified."""
        packed = {host: artifact.packed() for host, artifact in built.items()}
        return self.call("stage", lambda host: facts_of(built[host]), stdin=packed.get)

    def publish(self, date, restart=lambda host: ""):
        """Switches every host to `date` once all of them are ready to; none where one is not.
        Replies with `switched EPOCH`; the skew is theirs.

        `restart(host)` is the command that the host runs if it has to go back by itself, because
        this run fell silent before its commit; without one it waits for the next run.
        """
        def values(host):
            return {"DATE": date, "RESTART": restart(host), "WAIT": max(1, env.deploy.lease // 3)}

        outcomes = self.outcomes("publish", values, together=True)
        if any(outcome.kind is Unreachable for outcome in outcomes.failed.values()):
            again = self.outcomes("publish", values, hosts=outcomes.failed, together=True)
            outcomes.update(again)
        return replies(not_ready(outcomes).check())

    def committed(self, date):
        """The Outcomes of a commit, asked again where it was killed before its answer.

        Once some hosts may keep it, all have to: Ctrl-C is heeded after that, as Interrupted.
        Fenced where a newer run has all of them.
        """
        late = False
        try:
            outcomes = self.outcomes("commit", {"DATE": date})
        except (KeyboardInterrupt, Interrupted):
            late, outcomes = True, self.outcomes("commit", {"DATE": date})
        killed = [host for host, o in outcomes.failed.items() if o.kind is Failed]
        if killed:
            outcomes.update(self.outcomes("commit", {"DATE": date}, hosts=killed))
        if outcomes and all(outcome.kind is Fenced for outcome in outcomes.values()):
            outcomes.check()
        if late and not outcomes.failed:
            raise Interrupted(f"interrupted too late to go back: every host keeps {date}")
        return outcomes

    def revert(self):
        """Every host that switched goes back. Outcomes, whatever they are."""
        return self.outcomes("revert")

    def clean(self):
        """The end of a run: old releases go, but not those that are used, and so does its lock.
        All else is done, so that a failure is only said.
        """
        outcomes = self.outcomes("clean", {"KEEP": env.deploy.keep, "UNLOCK": "yes"})
        for host, reply in replies(outcomes).items():
            if reply.get("unlocked"):
                del self.tokens[host]
            for kept in reply.all("kept"):
                if " pid " in kept or " named in " in kept:
                    self.fleet.say(f"kept       {kept}", host)
        for host, outcome in outcomes.failed.items():
            self.fleet.say(f"old releases may be there still: {outcome.reason}", host)

    def still_ours(self):
        """Fenced where another run has a host: before a step that its script cannot fence off."""
        hosts = [host for host in self.fleet.hosts if env.units_of(host)]
        self.call("renew", step="", hosts=hosts)


def facts_of(artifact):
    """What `stage` is told of an artifact."""
    return {
        "DATE": env.deploy_date,
        "MANIFEST_SHA256": artifact.manifest_sha256,
        "ARTIFACT": artifact.sha256,
        "REVISION": artifact.revision,
    }


def not_ready(outcomes):
    """The Outcomes of a publish without the hosts that only waited for those that failed."""
    waited = [host for host, o in outcomes.failed.items() if Reply(o.stdout).get("reverted")]
    if len(waited) == len(outcomes.failed):
        return outcomes
    return Outcomes({host: o for host, o in outcomes.items() if host not in waited})


def unfit(reply):
    """Why a host is not fit for a change, from its preflight: sentences with the remedy."""
    if reply.get("setup") == "no":
        yield "not set up: run `fab setup`"
    for path in reply.all("foreign"):
        yield f"{path} was not made by this toolkit: `fab adopt` takes it over"
    for path in reply.all("missing"):
        yield f"shared {path} is missing: `fab put_shared FILE --name {path}` puts it there"


def skew(published):
    """Seconds between the first and the last switch of a publish, by the hosts' own clocks."""
    moments = [float(r.get("switched", "0")) for r in published.values() if r.get("switched")]
    return max(moments, default=0) - min(moments, default=0)
