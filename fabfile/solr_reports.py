"""solr_status: each core on each host, against its master and against what was deployed."""

from datetime import timedelta

from . import cores
from .env import env
from .errors import Failed
from .fleet import once
from .solr_hosts import ask

COLUMNS = ("core", "host", "is", "documents", "generation", "behind", "for", "polls", "release",
           "drift", "size", "heap", "free", "solr", "error")
ERRORS = {"invalid_leader": "its master does not answer"}


@once(roles=["solr"], help={"max-lag": "How many generations a slave may be behind its master."})
def solr_status(fleet, max_lag=0):
    """Each core's index, lag, release and drift. Exits 1 unless all are well and in sync."""
    master = cores.master(fleet.inventory.hosts)
    hosts = dict.fromkeys([master, *fleet.hosts])
    found = ask(fleet.only(hosts), "status")
    if env.dry:
        return
    newest = max(outcome.value.get("current", "") for outcome in found.values())
    rows, wrong = [], []
    for host in fleet.hosts:
        for entry in entries(found[host], newest, found[master].value.get("cores", {})):
            rows.append(row(host, entry))
            wrong += [f"{host.name}: {problem}" for problem in problems(host, entry, max_lag)]
    fleet.table("", COLUMNS, rows)
    if wrong:
        raise Failed("\n".join(wrong))


def entries(outcome, newest, masters):
    """A dict of facts for each core of a host; a single one where it did not answer."""
    if not outcome.ok:
        return [{"core": "-", "error": outcome.reason}]
    said = outcome.value
    shared = {name: said[name] for name in ("solr", "heap", "free", "current")}
    names = sorted({*said["cores"], *masters})
    return [
        shared | {"core": core, "error": "not loaded"} | said["cores"].get(core, {})
        | {"drift": drift(said, said["cores"].get(core, {}), newest)}
        | lag(said["cores"].get(core, {}), masters.get(core, {}))
        for core in names
    ] or [shared | {"core": "-", "error": "no core yet: fab deploy_solr", "drift": ""}]


def drift(said, core, newest):
    """How what a core runs is not what was deployed, in words; '' if it is."""
    if said["current"] != newest:
        return "another release"
    if said["edited"]:
        return f"edited: {' '.join(said['edited'])}"
    return "not loaded" if core.get("drift") else ""


def lag(core, master):
    """Generations and seconds, between the commits that both have, that a core is behind."""
    if "version" not in core or "version" not in master:
        return {"behind": None, "seconds": None}
    if core["version"] == master["version"]:
        return {"behind": 0, "seconds": 0}
    seconds = max(0, master["version"] - core["version"]) // 1000 if core["version"] else None
    return {"behind": max(1, master["generation"] - core["generation"]), "seconds": seconds}


def problems(host, entry, max_lag):
    """What is wrong with one core, in words."""
    if entry["error"]:
        reason = ERRORS.get(entry["error"], entry["error"])
        yield reason if entry["core"] == "-" else f"core {entry['core']}: {reason}"
        return
    if entry["drift"]:
        yield f"core {entry['core']}: drift: {entry['drift']}; fab deploy_solr heals it"
    if cores.role(host) == "slave" and entry["behind"] is None:
        yield f"core {entry['core']}: nothing to compare it with: its master does not answer"
    elif (entry["behind"] or 0) > max_lag:
        yield f"core {entry['core']}: behind its master, by {entry['behind']} of its generations"
    if entry["polling"] is False:
        yield f"core {entry['core']}: polling is off"


def row(host, entry):
    """The columns of one core."""
    heap = [size(number) for number in entry.get("heap", ())]
    return (
        entry["core"], host.name, cores.role(host), shown(entry.get("documents")),
        shown(entry.get("generation")), shown(entry.get("behind")), span(entry.get("seconds")),
        {True: "yes", False: "no"}.get(entry.get("polling"), "-"),
        entry.get("current") or "-", entry.get("drift") or "-", size(entry.get("bytes")),
        " of ".join(heap) or "-", size(entry.get("free")), entry.get("solr", "-"),
        ERRORS.get(entry["error"], entry["error"]) or "-",
    )


def shown(number):
    return "-" if number is None else str(number)


def span(seconds):
    return "-" if seconds is None else str(timedelta(seconds=seconds))


def size(number):
    return "-" if number is None else f"{number / 2**20:.1f} MB"
