"""deploy, rollback, rollforward and what one wants to know about them: the list of steps."""

import time

from .application import application, build, on_app_hosts, restart, restart_or_stop, way_back
from .env import env
from .errors import Fenced, Interrupted, Refused, Reverted, Stop, Stranded, no_way_back
from .lock import locked
from .prove import prove, trial
from .release import skew
from .reply import replies
from .resume import purpose, unfinished
from .stage import stage
from .watch import watch


@on_app_hosts(help={
    "revision": "What to deploy: a branch, tag or commit (deploy.revision).",
    "resume": "Go on with a deploy whose run was killed or lost its hosts.",
})
def deploy(fleet, revision="", resume=False):
    """Release a revision on all hosts, or on none."""
    releases = application(fleet)
    before = releases.preflight()
    if resume and not env.dry:  # which asks no host what it has
        env.deploy_date, revision = unfinished(before)
        fleet.say(f"resume     {purpose(env.deploy_date, revision)}")
    built = build(fleet, revision or env.deploy.revision)
    has_room(before, built, resumed=resume)
    releases.begin(purpose(env.deploy_date, built.revision), env.deploy_date if resume else None)
    with locked(releases) as taken:
        before = settle(releases, before, taken)
        stage(releases, built, before)
        trial(fleet, env.deploy_date)
        migrate(releases)
        switch(releases, before, env.deploy_date, watched=env.prove.watch > 0)
        clean(releases)


@on_app_hosts(help={"to": "The release to go back to (default: the one before the current)."})
def rollback(fleet, to=""):
    """Go back to the release that was live before the current one, or to --to DATE."""
    move(fleet, "rollback", "previous", to)


@on_app_hosts
def rollforward(fleet):
    """Undo a rollback."""
    move(fleet, "rollforward", "next", "")


def has_room(before, built, *, resumed=False):
    """Refused, naming the hosts, where the release would not fit or its name is not the newest."""
    problems = []
    for host, reply in before.items():
        need = 2 * built.bytes // 1024 + 1024
        if int(reply.get("free_kb") or need) < need:
            problems.append(f"{host.name}: {reply.get('free_kb')} KB free, {need} needed")
        inodes = reply.get("free_inodes", "-")
        if inodes.isdigit() and int(inodes) < 2 * built.files + 1000:
            problems.append(f"{host.name}: {inodes} inodes free, {2 * built.files + 1000} needed")
        newest = max(reply.all("release"), default="")
        if newest > env.deploy_date or (newest == env.deploy_date and not resumed):
            problems.append(f"{host.name}: has {newest} already; is this machine's clock behind?")
    if problems:
        raise Refused("\n".join(problems))


def settle(releases, before, taken):
    """Hosts that found a switch never committed have gone back: their services follow.

    Returns what each host has now.
    """
    back = {host: reply.get("reverted").split() for host, reply in taken.items()
            if reply.get("reverted")}
    if not back:
        return before
    for host, (left, date) in back.items():
        releases.fleet.say(f"an earlier run died after its switch to {left}: back to {date}", host)
    settled = releases.preflight()
    restart_or_stop(releases.fleet.only(back), settled)
    return settled


def migrate(releases):
    """Migrations, once, on one host, before anything is switched."""
    workers = [host for host in releases.fleet.hosts if env.units_of(host)]
    if env.deploy.migrate and workers:
        values = {"DATE": env.deploy_date, "COMMAND": env.deploy.migrate}
        releases.call("command", values, step="migrate", hosts=workers[:1])


def move(fleet, verb, neighbour, to):
    """Rollback and rollforward: the fleet moves along the line of releases that were live."""
    releases = application(fleet, f"{verb} {to}".strip())
    before = releases.preflight()
    with locked(releases) as taken:
        settled = settle(releases, before, taken)
        if verb == "rollback" and not to and settled is not before:
            return prove_each(fleet, settled)  # going back was asked for, and has just been done
        date = to or agreed(settled, neighbour, verb)
        lacking = [host.name for host, r in settled.items() if date not in r.all("release")]
        if lacking and not env.dry:
            raise Refused(f"{verb}: {', '.join(lacking)} has no release {date}; see fab releases")
        switch(releases, settled, date)


def agreed(before, neighbour, verb):
    """The one release that every host has beside its current one. Refused, with what each has."""
    pairs = {(reply.date("current"), reply.date(neighbour)) for reply in before.values()}
    if env.dry:
        return "DATE"
    current, date = next(iter(pairs))
    if len(pairs) == 1 and date:
        return date
    if len(pairs) == 1:
        raise Refused(f"{verb}: all hosts have {current}; they have no {neighbour} release")
    seen = "\n".join(
        f"{host.name}: current {reply.get('current')}, {neighbour} {reply.get(neighbour)}"
        for host, reply in before.items()
    )
    raise Refused(f"{verb}: hosts disagree, name a release with --to\n{seen}")


def switch(releases, before, date, *, watched=False):
    """Publish, restart, prove, batch by batch; then all hosts keep it, or all go back."""
    switched = []
    try:
        for hosts in releases.fleet.batches():
            batch, began = releases.on(releases.fleet.only(hosts)), time.monotonic()
            switched += hosts
            published = batch.publish(date, way_back(before))
            batch.still_ours()
            restart(batch.fleet)
            prove(batch.fleet, date)
            report(batch.fleet, before, published, date)
            if watched and not env.dry:
                watch(releases.fleet, batch.fleet, date, began)
    except Fenced:
        raise  # the newer run decides what this fleet serves
    except (Stop, KeyboardInterrupt) as error:
        go_back(releases.on(releases.fleet.only(switched)), before, error)
    commit(releases, date)


def go_back(releases, before, error):
    """Reverts every host that switched. Raises Reverted, or Stranded where one could not; Fenced
    where a newer run has taken over.
    """
    releases.fleet.say(f"going back: {error or 'interrupted'}")
    outcomes = releases.revert()
    back = releases.fleet.only(host for host, outcome in outcomes.items() if outcome.ok)
    stops = [outcome.stop() for outcome in outcomes.failed.values()]
    try:
        restart_or_stop(back, before)
        prove_each(back, before)
    except Stop as stop:
        stops.append(stop)
    if stops:
        raise no_way_back(stops, error)
    kind = Interrupted if isinstance(error, KeyboardInterrupt | Interrupted) else Reverted
    raise kind(f"{error or 'interrupted'}\nevery host is back on the release it had") from error


def prove_each(fleet, before):
    """Every host runs the release that it had before, whichever that was."""
    for date in {before[host].date("current") for host in fleet.hosts} - {None}:
        same = [host for host in fleet.hosts if before[host].date("current") == date]
        prove(fleet.only(same), date, step="prove back")


def commit(releases, date):
    """The hosts keep what they switched to. One that has gone back by itself says so."""
    outcomes = releases.committed(date)
    failed = outcomes.failed
    if not failed:
        return
    reasons = "\n".join(str(outcome.stop()) for outcome in failed.values())
    if len(failed) == len(outcomes) and all(o.kind is Refused for o in failed.values()):
        raise Reverted(f"{reasons}\nthis run was silent for too long, and every host went back")
    raise Stranded(f"{reasons}\nthe other hosts keep {date}; the next deploy puts these right")


def clean(releases):
    """Old releases go, but not those that are used; the deploy has succeeded even if this fails."""
    outcomes = releases.outcomes("clean", {"KEEP": env.deploy.keep})
    for host, reply in replies(outcomes).items():
        for kept in reply.all("kept"):
            if " pid " in kept or " named in " in kept:
                releases.fleet.say(f"kept       {kept}", host)
    for host, outcome in outcomes.failed.items():
        releases.fleet.say(f"old releases were not removed: {outcome.reason}", host)


def report(fleet, before, published, date):
    """What each host had and has, and how far apart they switched."""
    fleet.say(f"switched   {len(fleet.hosts)} hosts within {skew(published) * 1000:.0f} ms")
    rows = [(host.name, ",".join(host.roles), before[host].get("current", "-"), date)
            for host in fleet.hosts]
    fleet.table("", ("host", "roles", "was", "now"), rows)
