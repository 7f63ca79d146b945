"""Celery workers: restarted with nothing lost, and what they do now."""

import json
from pathlib import Path

from . import services
from .application import application
from .env import env
from .errors import Failed
from .fleet import once
from .prove import prove, running
from .shell import line

PROBE = Path(__file__).with_name("probe_celery.py").read_bytes()



def roles():
    """The roles whose hosts run workers."""
    unit = env.units.get(env.celery.unit)
    return unit.roles if unit else ()


on_workers = {"roles": roles}


@once(**on_workers)
def restart_celery(fleet):
    """Restart the workers once their running tasks have ended; each proves that it is back."""
    current = application(fleet).call("preflight", step="").dates("current")
    for hosts in fleet.batches():
        batch = fleet.only(hosts)
        before = pids(running(batch, only=env.celery.unit))
        restart(batch)
        for date in {current[host] for host in hosts}:
            same = batch.only(host for host in hosts if current[host] == date)
            came_back(before, pids(prove(same, date, only=env.celery.unit)))


def restart(fleet):
    """TERM: a worker takes no new task, ends those it has, and another one is started."""
    command = services.privileged(services.manager().restart(env.celery.unit))
    fleet.run(command, step="restart", deadline=env.celery.drain + 30).check()


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
    asked, heard = ask(fleet), running(fleet, only=env.celery.unit)
    if env.dry:
        return
    states = {host: state(outcome) for host, outcome in asked.items()}
    says = {host: answers[0] for host, answers in heard.items()}
    rows = [(worker(host), *row(says[host], states[host])) for host in states]
    fleet.table("", ("worker", "release", "pid", "active", "reserved", "scheduled"), rows)
    queues = {name: count for found in states.values() for name, count in found["queues"].items()}
    fleet.table("", ("queue", "waiting"), [*queues.items()])
    silent = [worker(host) for host, found in states.items() if found["active"] is None]
    if silent:
        raise Failed(f"no answer from {', '.join(silent)}")


def ask(fleet):
    """What the probe finds on each host, in its release's virtualenv."""

    def command(host):
        return line("cd {} && .venv/bin/python - {} {}", f"{env.deploy.deploy_to}/current",
                    env.celery.app, worker(host))

    return fleet.run(command, step="ask", stdin=PROBE).check()


def worker(host):
    """The name of a host's worker, as its unit gives it."""
    return f"celery@{host.name}"


def state(outcome):
    """The probe's answer: {active, reserved, scheduled: number or None, queues: name → length}."""
    nothing = '{"active": null, "reserved": null, "scheduled": null, "queues": {}}'
    return json.loads(outcome.stdout.strip() or nothing)


def row(says, found):
    """The columns of one worker."""
    process = (says["processes"] or [{"release": "-", "pid": "-"}])[0]
    counts = [found[name] for name in ("active", "reserved", "scheduled")]
    return process["release"], process["pid"], *("-" if n is None else n for n in counts)
