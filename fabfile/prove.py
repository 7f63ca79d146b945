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


def prove_fingerprints(fleet, expect):
    """Each host's nginx answers with the fingerprint that is expected of that host."""

    def command(host):
        return question("", [nginx_on(host)], expect[host], env.prove.health)

    fleet.run(command, step="prove", stdin=PROBE).check()


def running(fleet, only=None):
    """host → list of {unit, ok, reason, processes: [{pid, release}]}, as the processes say now."""
    folder = f"{env.deploy.deploy_to}/current"
    return _heard(_ask(fleet, folder, expect=None, deadline=2, step="ask", only=only))


def _heard(outcomes):
    return {host: answers(outcome.stdout) for host, outcome in outcomes.check().items()}


def _ask(fleet, folder, *, expect, deadline, step, only=None):
    hosts = [host for host in fleet.hosts if env.units_of(host)]

    def command(host):
        units = [unit_on(name, host) for name in env.units_of(host)
                 if only is None or name in only]
        if step == "trial":
            units = [unit for unit in units if unit["trial"]]
        return question(folder, units, expect, deadline, booting=step == "trial")

    return fleet.run(command, hosts=hosts, step=step, stdin=PROBE)


def question(folder, units, expect=None, deadline=2, *, booting=False):
    """The command that asks the probe about units of a release."""
    request = {"folder": folder, "expect": expect, "deadline": deadline, "trial": booting}
    return line("{} - {}", env.deploy.python, json.dumps(request | {"units": units}))


def unit_on(name, host):
    """What the probe is told of a unit."""
    unit = env.unit_on(name, host)
    asked = {key: getattr(unit, key) for key in ("processes", "trial", "health", "release", "ask")}
    return {"unit": name, **asked}


def nginx_on(host):
    """What the probe is told of a host's nginx, which answers with a fingerprint."""
    return {
        "unit": env.nginx.unit, "processes": 1, "folder": f"{env.nginx.deploy_to}/current",
        "release": f"http://{host.private_dns}:{env.nginx.port}/__nginx__", "fingerprint": True,
    }


def answers(text):
    """A probe's answers: a JSON object a line, or a list of them."""
    found = [json.loads(said) for said in text.splitlines() if said.startswith(("{", "["))]
    return [answer for said in found for answer in (said if isinstance(said, list) else [said])]
