"""Celery workers: restarted with nothing lost, and what they do now."""

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
    unit = env.units.get(env.celery.unit)
    return unit.roles if unit else ()


on_workers = {"roles": roles}
TASKS = ("active", "reserved", "scheduled")


@once(**on_workers)
def restart_celery(fleet):
    """Restart the workers once their running tasks have ended; each proves that it is back."""
    all_run_workers(fleet)
    current = application(fleet).call("preflight", step="").dates("current")
    for hosts in fleet.batches():
        batch = fleet.only(hosts)
        before = pids(running(batch, only=env.celery.unit))
        restart(batch, only=env.celery.unit)
        for date in {current[host] for host in hosts}:
            same = batch.only(host for host in hosts if current[host] == date)
            came_back(before, pids(proved(same, date)))


def all_run_workers(fleet):
    """Usage, naming them, for hosts that run no worker."""
    others = [host.name for host in fleet.hosts if env.celery.unit not in env.units_of(host)]
    if others:
        raise Usage(f"{', '.join(others)}: no role of theirs runs the unit {env.celery.unit}")


def proved(fleet, date):
    """What the workers of release `date` answer. Failed, after the end of the logs of those that
    don't: a worker may end long after its manager has called it started.
    """
    try:
        return prove(fleet, date, only=env.celery.unit)
    except Failed:
        heard = running(fleet.quiet(), only=env.celery.unit)
        silent = [host for host, answers in heard.items() if not answers[0]["ok"]]
        for host, outcome in logs(fleet.only(silent)).items():
            fleet.say(outcome.stderr, host)
        raise


def logs(fleet):
    """The end of each worker's log."""
    command = services.privileged(services.manager().log(env.celery.unit))
    return fleet.quiet().run(command, step="log")


def pids(heard):
    """host → the pids of its workers, as they say themselves; none if nobody answers."""
    return {
        host: {process["pid"] for answer in answers for process in answer["processes"]}
        for host, answers in heard.items()
    }


def came_back(before, after):
    """Failed, naming the hosts, where the worker that answers is the one from before."""
    same = [host.name for host in after if after[host] & before[host]]
    if same:
        raise Failed(f"the old worker still answers on {', '.join(same)}")


@once(**on_workers)
def celery_status(fleet):
    """Each worker's release and tasks, and how long the queues are. Exits 1 if one is silent."""
    all_run_workers(fleet)
    asked, heard = ask(fleet), running(fleet, only=env.celery.unit)
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
