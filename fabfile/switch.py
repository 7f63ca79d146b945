"""Hosts that switched to a release keep it together, or go back together; services follow."""

from contextlib import contextmanager

from .env import env
from .errors import Fenced, Interrupted, Refused, Reverted, Stop, Stranded, no_way_back


@contextmanager
def all_or_nothing(releases, before, date, follow):
    """The block publishes `date` and proves it, adding to the list that it gets the hosts which
    may have switched. At its end all keep the release; where it fails, all these go back and
    `follow(fleet, before)` lets their services run what they had `before`.

    Raises Reverted or Interrupted then, Stranded where a host could not go back, and Fenced where
    a newer run has taken over, which decides what these hosts run.
    """
    switched = []
    try:
        yield switched
    except Fenced:
        raise
    except (Stop, KeyboardInterrupt) as error:
        go_back(releases.on(releases.fleet.only(switched)), before, follow, error)
    keep(releases, date)


def go_back(releases, before, follow, error):
    """Reverts hosts because of `error`, which is raised as what became of them."""
    releases.fleet.say(f"going back: {error or 'interrupted'}")
    outcomes = releases.revert()
    stops = [outcome.stop() for outcome in outcomes.failed.values()]
    try:
        follow(releases.fleet.only(host for host, o in outcomes.items() if o.ok), before)
    except Stop as stop:
        stops.append(stop)
    if stops:
        raise no_way_back(stops, error)
    kind = Interrupted if isinstance(error, KeyboardInterrupt | Interrupted) else Reverted
    raise kind(f"{error or 'interrupted'}\nevery host is back on the release it had") from error


def keep(releases, date):
    """The hosts keep what they switched to. One that has gone back by itself says so."""
    outcomes = releases.committed(date)
    failed = outcomes.failed
    if not failed:
        return
    reasons = "\n".join(str(outcome.stop()) for outcome in failed.values())
    if len(failed) == len(outcomes) and all(o.kind is Refused for o in failed.values()):
        raise Reverted(f"{reasons}\nthis run was silent for too long, and every host went back")
    raise Stranded(f"{reasons}\nthe other hosts keep {date}; the next one puts these right")


def settle(releases, before, taken, follow):
    """Hosts that found a switch never committed, as `taken`, the lock's replies, tell, have gone
    back: their services follow. Returns what each host has now.
    """
    back = {host: reply.get("reverted").split() for host, reply in taken.items()
            if reply.get("reverted")}
    if not back:
        return before
    for host, (left, date) in back.items():
        releases.fleet.say(f"an earlier run died after its switch to {left}: back to {date}", host)
    settled = releases.preflight()
    follow(releases.fleet.only(back), settled)
    return settled


def found_everywhere(before, verb, date):
    """The release `date` that hosts are to move to. Refused, naming them, where one has it not."""
    lacking = [host.name for host, r in before.items() if date not in r.all("release")]
    if lacking and not env.dry:
        raise Refused(f"{verb}: {', '.join(lacking)} has no release {date}; see fab releases")
    return date
