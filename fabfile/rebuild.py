"""What a new schema does to the index that is there: whether it has to be built anew, and how,
beside the one that answers."""

from . import cores
from .errors import Refused
from .schema import Schema, differences, not_kept
from .solr_hosts import PATIENCE, ask, heard

ANEW = 24 * 3600  # seconds; one that says nothing is ended by fleet.silence


def schemas(fleet, **which):
    """core → Schema that the master has: in the release `release`, or in its current one."""
    master = cores.master(fleet.inventory.hosts)
    asked = ask(fleet.only([master]), "schemas", which, step="compare")
    return {core: Schema(text, f"{master.name}: {core}")
            for core, text in heard(asked, "schemas")[master].items()}


def reasons(old, new, *, back=False):
    """(core, reason) of each core whose index has to be built anew; of mappings core → Schema."""
    return [(core, reason) for core in sorted(old.keys() & new.keys())
            for reason in differences(old[core], new[core], removed=not back)]


def needed(fleet, new, *, allowed, back=False):
    """The cores whose index has to be built anew for their Schema in `new`. On the way `back` a
    field may be missed.

    Refused, naming each field, if that is not allowed, or can't be done.
    """
    old = schemas(fleet)
    lines = reasons(old, new, back=back)
    anew = sorted({core for core, _ in lines})
    if anew and not allowed:
        lines = [f"core {core}: {reason}" for core, reason in lines]
        raise Refused("\n".join([*lines, "the index that is there would be wrong, and nothing was "
                                         "changed; with --reindex it is built anew"]))
    for core in anew:
        check_can_be(fleet, core, not_kept(old[core], new[core]))
    return anew


def check_can_be(fleet, core, lost):
    """Refused if a core can't be built anew from itself, on all hosts at once."""
    if lost:
        raise Refused(f"core {core}: its index does not give back {', '.join(lost)}, so it can't "
                      "be built anew from itself. Nothing was changed")
    absent = [host.name for host in fleet.inventory.hosts
              if "solr" in host.roles and host not in fleet.hosts]
    if absent:
        raise Refused(f"--reindex is for all Solrs at once, not without {', '.join(absent)}")


def beside(fleet, date, anew):
    """The cores `anew` are built on the master and fetched by every slave. They answer once the
    release is switched to.
    """
    if not anew:
        return
    made = heard(ask(fleet.having(cores.MASTER), "rebuild", {"release": date, "cores": anew},
                     step="reindex", deadline=ANEW), "cores")
    values = {"release": date, "masters": made[cores.master(fleet.inventory.hosts)],
              "deadline": PATIENCE}
    ask(fleet.having(cores.SLAVE), "copy", values, step="copy", deadline=ANEW).check()


def drop(fleet, anew):
    """Takes away what lies beside: what has failed, or the indexes that were before. What can't be
    taken away now is by the next run.
    """
    if anew:
        ask(fleet, "tidy", step="tidy")
