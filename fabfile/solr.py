"""Solr's configuration: rendered for each host, proved in scratch cores, switched, replicated."""

import difflib
from pathlib import Path

from . import artifact, cores, rebuild
from .env import env
from .errors import Fenced, Interrupted, Refused, Reverted, Stop, Stranded, no_way_back
from .fleet import once
from .lock import locked
from .release import Releases, facts_of
from .schema import Schema
from .solr_hosts import PROBE, ask, compare, following

on_solr = {"roles": ["solr"]}
REINDEX = "Build the index anew, beside the one that answers, where the schema asks for it."


@once(**on_solr, help={"reindex": REINDEX})
def deploy_solr(fleet, reindex=False):
    """Prove the rendered cores on every Solr, then switch to them; or all keep what they have."""
    releases = Releases(fleet, env.solr.deploy_to, f"deploy_solr {env.deploy_date}")
    rendered = {host: cores.render(host, fleet.inventory.hosts) for host in fleet.hosts}
    built = {host: packed(files) for host, files in rendered.items()}
    if env.dry:
        show_changes(fleet, rendered)
    releases.call("setup")
    before = releases.preflight()
    with locked(releases) as taken:
        before = settle(releases, before, taken)
        anew = rebuild.needed(fleet, schemas(rendered[fleet.hosts[0]]), allowed=reindex)
        releases.call("stage", lambda host: facts_of(built[host]),
                      stdin=lambda host: built[host].path)
        prove(fleet, env.deploy_date, rendered)
        change(releases, env.deploy_date, anew)
        releases.outcomes("clean", {"KEEP": env.deploy.keep})


@once(**on_solr, help={
    "to": "The release to go back to (default: the one before the current).",
    "reindex": REINDEX,
})
def rollback_solr(fleet, to="", reindex=False):
    """Go back to the cores that were live before the current ones, or to --to DATE."""
    releases = Releases(fleet, env.solr.deploy_to, f"rollback_solr {to}".strip())
    before = releases.preflight()
    with locked(releases) as taken:
        settled = settle(releases, before, taken)
        if not to and settled is not before:
            return compare(fleet)  # going back was asked for, and has just been done
        date = to or agreed(settled)
        lacking = [host.name for host, r in settled.items() if date not in r.all("release")]
        if lacking and not env.dry:
            raise Refused(f"rollback_solr: {', '.join(lacking)} has no release {date}")
        wanted = rebuild.schemas(fleet, release=date)
        anew = rebuild.needed(fleet, wanted, allowed=reindex, back=True)
        change(releases, date, anew)


def show_changes(fleet, rendered):
    """How what each host has differs from what it would have, and what that asks for."""
    for host, outcome in ask(fleet, "files", reads=True).items():
        if not outcome.ok:
            fleet.say(f"what is deployed can't be read: {outcome.reason}", host)
            continue
        for text in changes(outcome.value["files"], rendered[host]) or ["nothing would change"]:
            fleet.say(text, host)
        had, new = schemas(outcome.value["files"]), schemas(rendered[host])
        for core, reason in rebuild.reasons(had, new):
            fleet.say(f"--reindex is needed: core {core}: {reason}", host)


def changes(old, new):
    """The lines of the differences between files, path → text."""
    lines = [(path, old.get(path, "").splitlines(), new.get(path, "").splitlines())
             for path in sorted(old | new)]
    return [line for path, before, after in lines
            for line in difflib.unified_diff(before, after, f"deployed/{path}", path, lineterm="")]


def packed(files):
    """A host's cores, and what lets Solr follow a switch, as an artifact."""
    contents = {name: text.encode() for name, text in files.items()}
    return artifact.from_files(contents | {PROBE.name: PROBE.read_bytes()},
                               cache=Path.home() / ".cache/fab/cores")


def schemas(files):
    """core → Schema of the rendered files that are one."""
    return {core: Schema(files[name], f"templates/solr/{name}") for core in cores.names()
            if (name := f"{core}/conf/schema.xml") in files}


def prove(fleet, date, rendered):
    """Each host's Solr loads the staged cores as scratch cores, and indexes and finds with them."""
    def values(host):
        samples = {core: one.sample() for core, one in schemas(rendered[host]).items()}
        return {"release": date, "samples": samples}

    ask(fleet, "prove", values, step="prove").check()


def settle(releases, before, taken):
    """Hosts that found a switch never committed have gone back: their Solr follows.

    Returns what each host has now.
    """
    back = [host for host, reply in taken.items() if reply.get("reverted")]
    if not back:
        return before
    ask(releases.fleet.only(back), "follow", step="reload").check()
    return releases.preflight()


def agreed(before):
    """The one release that every host had before its current one. Refused, with what each has."""
    dates = set(before.dates("previous").values())
    if len(dates) == 1 and (date := dates.pop()):
        return date
    if env.dry:
        return "DATE"
    seen = [f"{host.name}: current {reply.get('current')}, previous {reply.get('previous')}"
            for host, reply in before.items()]
    raise Refused("\n".join(["rollback_solr: there is no one release to go back to", *seen]))


def change(releases, date, anew):
    """The switch to a release, with an index for it where the one that is there would be wrong."""
    try:
        rebuild.beside(releases.fleet, date, anew)
        switch(releases, date)
    except Fenced:
        raise  # what lies beside the cores now is the newer run's
    except (Stop, KeyboardInterrupt):
        rebuild.drop(releases.fleet, anew)
        raise
    rebuild.drop(releases.fleet, anew)


def switch(releases, date):
    """Slaves first, then the master; then slaves fetch and are compared. Or all go back."""
    switched = []
    try:
        for role in (cores.SLAVE, cores.MASTER):
            part = releases.on(releases.fleet.having(role))
            switched += part.fleet.hosts
            part.publish(date, following(date))
            ask(part.fleet, "take", step="reload").check()
        compare(releases.fleet)
    except Fenced:
        raise  # the newer run decides what these Solrs run
    except (Stop, KeyboardInterrupt) as error:
        go_back(releases.on(releases.fleet.only(switched)), error)
    commit(releases, date)


def go_back(releases, error):
    """Every host that switched takes its old cores. Raises Reverted, Stranded or Fenced."""
    releases.fleet.say(f"going back: {error or 'interrupted'}")
    outcomes = releases.revert()
    back = releases.fleet.only(host for host, outcome in outcomes.items() if outcome.ok)
    failed = {**outcomes.failed, **ask(back, "follow", step="reload").failed}
    if failed:
        raise no_way_back([outcome.stop() for outcome in failed.values()], error)
    kind = Interrupted if isinstance(error, KeyboardInterrupt | Interrupted) else Reverted
    raise kind(f"{error or 'interrupted'}\nthe old cores are back") from error


def commit(releases, date):
    """The hosts keep what they switched to. One that has gone back by itself says so."""
    outcomes = releases.committed(date)
    reasons = "\n".join(str(outcome.stop()) for outcome in outcomes.failed.values())
    if reasons and all(outcome.kind is Refused for outcome in outcomes.values()):
        raise Reverted(f"{reasons}\nthis run was silent for too long, and every host went back")
    if reasons:
        raise Stranded(f"{reasons}\nthe other hosts keep {date}; the next deploy_solr heals these")
