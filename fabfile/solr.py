"""Solr's configuration: rendered for each host, proved in scratch cores, switched, replicated."""

import difflib
from pathlib import Path

from . import artifact, cores, rebuild
from .env import env
from .errors import Fenced, Refused, Stop
from .fleet import once
from .lock import locked
from .release import Releases
from .schema import Schema
from .solr_hosts import PROBE, ask, compare, following
from .switch import all_or_nothing, found_everywhere, settle

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
        before = settle(releases, before, taken, follow)
        anew = rebuild.needed(fleet, schemas(rendered[fleet.hosts[0]]), allowed=reindex)
        releases.stage(built)
        prove(fleet, env.deploy_date, rendered)
        change(releases, before, env.deploy_date, anew)
        releases.clean()


@once(**on_solr, help={
    "to": "The release to go back to (default: the one before the current).",
    "reindex": REINDEX,
})
def rollback_solr(fleet, to="", reindex=False):
    """Go back to the cores that were live before the current ones, or to --to DATE."""
    releases = Releases(fleet, env.solr.deploy_to, f"rollback_solr {to}".strip())
    before = releases.preflight()
    with locked(releases) as taken:
        settled = settle(releases, before, taken, follow)
        if not to and settled is not before:
            return compare(fleet)  # going back was asked for, and has just been done
        date = found_everywhere(settled, "rollback_solr", to or agreed(settled))
        wanted = rebuild.schemas(fleet, release=date)
        anew = rebuild.needed(fleet, wanted, allowed=reindex, back=True)
        change(releases, settled, date, anew)


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


def change(releases, before, date, anew):
    """The switch to a release, with an index for it where the one that is there would be wrong."""
    try:
        rebuild.beside(releases.fleet, date, anew)
        switch(releases, before, date)
    except Fenced:
        raise  # what lies beside the cores now is the newer run's
    except (Stop, KeyboardInterrupt):
        rebuild.drop(releases.fleet, anew)
        raise
    rebuild.drop(releases.fleet, anew)


def switch(releases, before, date):
    """Slaves first, then the master; then slaves fetch and are compared. Or all go back."""
    with all_or_nothing(releases, before, date, follow) as switched:
        for role in (cores.SLAVE, cores.MASTER):
            part = releases.on(releases.fleet.having(role))
            switched += part.fleet.hosts
            part.publish(date, following(date))
            ask(part.fleet, "take", step="reload").check()
        compare(releases.fleet)


def follow(fleet, before):
    """Solrs take the cores that their host went back to."""
    ask(fleet, "follow", step="reload").check()
