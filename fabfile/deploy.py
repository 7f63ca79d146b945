"""deploy, rollback, rollforward and what one wants to know about them: the list of steps."""

import time

from .application import application, build, on_app_hosts, restart, restart_or_stop, way_back
from .env import env
from .errors import Locked, Refused
from .lock import holder, locked
from .prove import prove, trial
from .release import skew
from .resume import purpose, unfinished
from .stage import stage
from .switch import all_or_nothing, found_everywhere, settle
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
        before = settle(releases, before, taken, restart_or_stop)
        stage(releases, built, before)
        trial(fleet, env.deploy_date)
        migrate(releases)
        switch(releases, before, env.deploy_date, watched=env.prove.watch > 0)
        releases.clean()


@on_app_hosts(help={"to": "The release to go back to (default: the one before the current)."})
def rollback(fleet, to=""):
    """Go back to the release that was live before the current one, or to --to DATE."""
    move(fleet, "rollback", "previous", to)


@on_app_hosts
def rollforward(fleet):
    """Undo a rollback."""
    move(fleet, "rollforward", "next", "")


def has_room(before, built, *, resumed=False):
    """Refused, naming the hosts, where the release would not fit or its name is not the newest;
    Locked where that is so as another run is at work, which began in the same second.
    """
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
            if reply.get("lock_token"):
                raise Locked(holder(host, reply))  # who has just staged it
            problems.append(f"{host.name}: has {newest} already; is this machine's clock behind? "
                            "--deploy-date names a later one")
    if problems:
        raise Refused("\n".join(problems))


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
        settled = settle(releases, before, taken, restart_or_stop)
        if verb == "rollback" and not to and settled is not before:
            return prove_each(fleet, settled)  # going back was asked for, and has just been done
        date = to or agreed(settled, neighbour, verb)
        switch(releases, settled, found_everywhere(settled, verb, date))


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
    with all_or_nothing(releases, before, date, go_on_with) as switched:
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


def go_on_with(fleet, before):
    """Processes run the release that their host went back to, and prove it."""
    restart_or_stop(fleet, before)
    prove_each(fleet, before)


def prove_each(fleet, before):
    """Every host runs the release that it had before, whichever that was."""
    for date in {before[host].date("current") for host in fleet.hosts} - {None}:
        same = [host for host in fleet.hosts if before[host].date("current") == date]
        prove(fleet.only(same), date, step="prove back")


def report(fleet, before, published, date):
    """What each host had and has, and how far apart they switched."""
    fleet.say(f"switched   {len(fleet.hosts)} hosts within {skew(published) * 1000:.0f} ms")
    rows = [(host.name, ",".join(host.roles), before[host].get("current", "-"), date)
            for host in fleet.hosts]
    fleet.table("", ("host", "roles", "was", "now"), rows)
