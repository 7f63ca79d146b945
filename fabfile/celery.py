"""Celery workers: restarted with nothing lost, what they do now, and what a camera has seen."""

import json
from pathlib import Path

from . import services
from .application import application, restart
from .env import env
from .errors import Failed, Usage
from .fleet import once
from .prove import prove, running
from .shell import line

PROBE = Path(__file__).with_name("probe_celery.py").read_bytes()


def roles():
    """The roles whose hosts run workers."""
    return roles_of(env.celery.unit)


def all_roles():
    """The roles whose hosts run anything of Celery."""
    return roles_of(env.celery.unit, *env.celery.beside)


def roles_of(*units):
    return tuple(role for unit in units if unit in env.units for role in env.units[unit].roles)


on_workers = {"roles": roles}
TASKS = ("active", "reserved", "scheduled")


@once(roles=all_roles)
def restart_celery(fleet):
    """Restart the workers once their running tasks have ended, then beat and what else there is.

    Each proves that it is back. There are never two beats: one ends before another is started.
    """
    all_run(fleet, env.celery.unit, *env.celery.beside)
    current = application(fleet).call("preflight", step="").dates("current")
    for hosts in fleet.batches():
        renew(fleet.only(hosts), current, env.celery.unit)
    renew(fleet, current, *env.celery.beside)


def renew(fleet, current, *units):
    """Restarts units where they run; each has to answer from another process than before."""
    fleet = fleet.only(host for host in fleet.hosts if set(units) & set(env.units_of(host)))
    if not fleet.hosts:
        return
    before = pids(running(fleet, only=units))
    restart(fleet, only=units)
    for date in {current[host] for host in fleet.hosts}:
        same = fleet.only(host for host in fleet.hosts if current[host] == date)
        came_back(before, pids(proved(same, date, units)))


def all_run(fleet, *units):
    """Usage, naming them, for hosts that run none of these units."""
    others = [host.name for host in fleet.hosts if not set(units) & set(env.units_of(host))]
    if others:
        known = " or ".join(units)
        raise Usage(f"{', '.join(others)}: no role of theirs runs the unit {known}")


def proved(fleet, date, units):
    """What the units of release `date` answer. Failed, after the end of the logs of those that
    don't: a worker may end long after its manager has called it started.
    """
    try:
        return prove(fleet, date, only=units)
    except Failed:
        for host, answers in running(fleet.quiet(), only=units).items():
            for answer in answers:
                if not answer["ok"]:
                    fleet.say(log(fleet.only([host]), answer["unit"]), host)
        raise


def log(fleet, unit):
    """The end of what a unit of one host has printed."""
    command = services.privileged(services.manager().log(unit))
    return next(iter(fleet.quiet().run(command, step="log").values())).stderr


def pids(heard):
    """host → the pids of its workers, as they say themselves; none if nobody answers."""
    return {
        host: {process["pid"] for answer in answers for process in answer["processes"]}
        for host, answers in heard.items()
    }


def came_back(before, after):
    """Failed, naming the hosts, where a process that answers is one from before."""
    same = [host.name for host in after if after[host] & before[host]]
    if same:
        raise Failed(f"an old process still answers on {', '.join(same)}")


@once(**on_workers)
def celery_status(fleet):
    """Each worker's release and tasks, and how long the queues are. Exits 1 if one is silent."""
    all_run(fleet, env.celery.unit)
    asked, heard = ask(fleet), running(fleet, only=[env.celery.unit])
    if env.dry:
        return
    states = {host: state(outcome) for host, outcome in asked.items()}
    rows = [(worker(host), *row(heard[host][0], found["tasks"])) for host, found in states.items()]
    fleet.table("", ("worker", "release", "pid", *TASKS), rows)
    queues = {name: count for found in states.values() for name, count in found["queues"].items()}
    if queues:
        fleet.table("", ("queue", "waiting"), [*queues.items()])
    asked.check()
    silent = [host for host, found in states.items() if not found["tasks"]]
    if silent:
        raise Failed(f"no answer from {', '.join(excuses(fleet.only(silent)))}")


def ask(fleet):
    """The Outcomes of the probe on each host."""
    return fleet.run(probe, step="ask", stdin=PROBE)


def probe(host):
    """The command that asks a host's worker, in its release's virtualenv."""
    return line("cd {} && .venv/bin/python - {} {}",
                f"{env.deploy.deploy_to}/current", env.celery.app, worker(host))


def worker(host):
    """The name of a host's worker, as its unit gives it."""
    return f"celery@{host.name}"


def state(outcome):
    """The probe's answer: tasks (how many the worker runs, holds and has scheduled; none if it is
    silent) and queues (name → how many wait).
    """
    return json.loads(outcome.stdout.strip() or '{"tasks": {}, "queues": {}}')


def row(says, tasks):
    """The columns of one worker."""
    process = (says["processes"] or [{"release": "-", "pid": "-"}])[0]
    return process["release"], process["pid"], *(tasks.get(name, "-") for name in TASKS)


def excuses(fleet):
    """What the service manager says of each silent worker: `celery@queue1 (RUNNING, pid 12)`."""
    manager = services.manager()
    outcomes = fleet.run(services.privileged(manager.status([env.celery.unit])), step="status")
    for host, outcome in outcomes.items():
        processes = manager.parse_status(outcome.stdout).get(env.celery.unit, [])
        words = [f"{p.state}, pid {p.pid}" if p.pid else p.state for p in processes]
        yield f"{worker(host)} ({', '.join(words) or outcome.reason or 'no such unit'})"


@once(**on_workers)
def celery_snapshot(fleet):
    """What the camera has seen last: tasks by state, the queue's length, the slowest tasks."""
    if not env.celery.snapshots:
        raise Usage("fabric.yml: celery.snapshots names no command that prints snapshots")
    command = line("cd {} && PATH=.venv/bin:$PATH exec sh -c {}",
                   f"{env.deploy.deploy_to}/current", env.celery.snapshots)
    outcomes = fleet.run(command, hosts=fleet.hosts[:1], step="ask").check()
    if env.dry:
        return
    seen = json.loads(next(iter(outcomes.values())).stdout)
    show_snapshots(fleet, seen["snapshots"])
    fleet.say(f"plotted    {url(fleet, seen['page'])}")


def show_snapshots(fleet, shots):
    """The tables. Failed if the camera has not seen anything yet."""
    if not shots:
        raise Failed("there is no snapshot yet: does the camera run? See fab running")
    rows = [(shot["taken"], shot["waiting"], counted(shot["states"]), ", ".join(shot["workers"]))
            for shot in shots]
    fleet.table("", ("snapshot", "waiting", "tasks that got there", "workers"), rows)
    slow = sorted(((seconds, name, worker, shot["taken"]) for shot in shots
                   for name, seconds, worker in shot["slowest"]), reverse=True)
    if slow:
        fleet.table("", ("seconds", "slowest tasks", "worker", "snapshot"), slow[:5])


def counted(states):
    """How many tasks got into each state: `RECEIVED 2, SUCCESS 40`."""
    return ", ".join(f"{name} {states[name]}" for name in sorted(states)) or "-"


def url(fleet, page):
    """A page's address, on the first load balancer if there is one."""
    fronts = [host for host in fleet.inventory.hosts if "nginx" in host.roles]
    return f"http://{env.address(fronts[0])}:{env.nginx.port}{page}" if fronts else page
