"""Every answer is visible: what is where, who deployed it when, who has the lock."""

import json

from .application import application, on_app_hosts
from .env import env
from .errors import Refused
from .progress import agreed
from .reply import moment


@on_app_hosts
def releases(fleet):
    """What is on each host, which is current, who deployed it, when, from which revision."""
    found = application(fleet).call("list", step="")
    dates = sorted({entry.split()[0] for r in found.values() for entry in r.all("release")})
    rows = [row for date in dates for row in _rows(date, found)]
    fleet.table("", ("release", "is", "revision", "staged", "by", "on"), rows)


def _rows(date, found):
    """The rows of one release: hosts that say the same of it share one."""
    seen = {}
    for host, reply in found.items():
        for entry in reply.all("release"):
            name, state, revision, staged, owner = entry.split(" ", 4)
            if name == date:
                seen.setdefault((state, revision, owner), []).append((host.name, staged))
    for (state, revision, owner), hosts in seen.items():
        yield date, state, revision[:10], moment(hosts[0][1]), owner, " ".join(h for h, _ in hosts)


@on_app_hosts(help={"last": "How many entries of each host."})
def audit(fleet, last=20):
    """Who did what, when, from where and how it ended, as each host recorded it."""
    found = application(fleet).outcomes("audit", {"LAST": last}, step="").check()
    entries = sorted(
        ((json.loads(entry), host) for host, outcome in found.items()
         for entry in outcome.stdout.splitlines() if entry.startswith("{")),
        key=lambda pair: pair[0]["when"],
    )
    rows = [(e["when"], host.name, e["verb"], e["outcome"], e["from"] or "-", e["to"] or "-",
             e["revision"][:10], e["owner"], e["client"], e["token"]) for e, host in entries]
    fleet.table("", ("when", "host", "verb", "outcome", "from", "to", "revision", "by", "client",
                     "token"), rows)


@on_app_hosts(help={"yes": "Do not ask."})
def unlock(fleet, yes=False):
    """Take the lock away from whoever has it: their run can change nothing any more."""
    releases = application(fleet, "unlock")
    found = releases.call("preflight", step="")
    held = {host: reply for host, reply in found.items() if reply.get("lock_owner")}
    if env.dry:
        return releases.call("unlock", {"FORCE": "yes"})
    if not held:
        return fleet.say("no host is locked")
    for host, reply in held.items():
        fleet.say(f"{reply.get('lock_owner')}: {reply.get('lock_purpose')} "
                  f"(since {moment(reply.get('lock_since'))})", host)
    if not (yes or agreed("Take it away? [y/N] ")):
        raise Refused("the lock was left as it was; add --yes to take it away")
    releases.call("unlock", {"FORCE": "yes"}, hosts=held)
