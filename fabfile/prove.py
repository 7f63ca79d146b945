"""Asks processes, on their own host, whether they are well and which release they run."""

import json
from pathlib import Path

from .env import env
from .shell import line

PROBE = Path(__file__).with_name("probe.py").read_bytes()


def trial(fleet, date):
    """Boots release `date` beside the live one on each host that has units. Failed if it can't."""
    folder = f"{env.deploy.deploy_to}/releases/{date}"
    _ask(fleet, folder, expect=date, deadline=env.prove.trial, step="trial").check()


def prove(fleet, date, step="prove", only=None):
    """Each process of each unit (or of those named) is well and runs `date`; Failed names others.

    Returns what they said, as running() does.
    """
    folder = f"{env.deploy.deploy_to}/current"
    return _heard(_ask(
        fleet, folder, expect=date, deadline=env.prove.health, step=step, only=only))


def prove_url(fleet, urls, expect, step="prove"):
    """The process behind each host's URL says that it runs what is expected of that host."""

    def command(host):
        unit = {"unit": urls[host], "processes": 1, "release": urls[host]}
        return _command(env.deploy.deploy_to, [unit], expect[host], env.prove.health)

    fleet.run(command, step=step, stdin=PROBE).check()


def running(fleet, only=None):
    """host → list of {unit, ok, reason, processes: [{pid, release}]}, as the processes say now."""
    folder = f"{env.deploy.deploy_to}/current"
    return _heard(_ask(fleet, folder, expect=None, deadline=2, step="ask", only=only))


def _heard(outcomes):
    return {host: answers(outcome.stdout) for host, outcome in outcomes.check().items()}


def _ask(fleet, folder, *, expect, deadline, step, only=None):
    hosts = [host for host in fleet.hosts if env.units_of(host)]

    def command(host):
        units = [_unit(name, host) for name in env.units_of(host)
                 if only is None or name in only]
        if step == "trial":
            units = [unit for unit in units if unit["trial"]]
        return _command(folder, units, expect, deadline, booting=step == "trial")

    return fleet.run(command, hosts=hosts, step=step, stdin=PROBE)


def _command(folder, units, expect, deadline, *, booting=False):
    """The probe, asked about units of a release."""
    request = {"folder": folder, "expect": expect, "deadline": deadline, "trial": booting}
    return line("{} - {}", env.deploy.python, json.dumps(request | {"units": units}))


def _unit(name, host):
    """What the probe is told of a unit."""
    unit = env.unit_on(name, host)
    asked = {key: getattr(unit, key) for key in ("processes", "trial", "health", "release", "ask")}
    return {"unit": name, **asked}


def answers(text):
    """The probe's answers: one JSON object a line."""
    return [json.loads(answer) for answer in text.splitlines() if answer.startswith("{")]
