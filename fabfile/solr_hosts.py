"""What is asked of the Solrs of a fleet, and done to their cores: each by its own host, with
probe_solr.py, so that Solr need answer to nobody else."""

import json
import time
from pathlib import Path

from . import cores
from .env import env
from .errors import Failed
from .fleet import called
from .shell import line

PROBE = Path(__file__).with_name("probe_solr.py")
PATIENCE = 60  # seconds that a slave may take to fetch what its master has


def ask(fleet, verb, values=None, *, step="", deadline=None, reads=False):
    """One verb of the probe on each host; `values` is a mapping or host → mapping. Outcomes, with
    the probe's answer, the last line of what it says, in `value`.
    """
    outcomes = fleet.run(lambda host: command(host, verb, called(values, host)), step=step,
                         stdin=PROBE.read_bytes(), deadline=deadline, reads=reads)
    for outcome in outcomes.values():
        said = outcome.stdout.splitlines() if outcome.ok else []
        outcome.value = json.loads(said[-1]) if said else {}
    return outcomes


def command(host, verb, values=None):
    """The probe, with one verb for a host."""
    return line("{} - {}", env.deploy.python, json.dumps(question(host, verb) | (values or {})))


def question(host, verb):
    """What every request has."""
    solr = env.solr
    return {"verb": verb, "address": host.private_dns, "port": solr.port, "home": solr.home,
            "deploy_to": solr.deploy_to}


def following(date):
    """host → the command by which its Solr takes what `current` names, with nobody there to ask:
    the probe is in the release that is being published.
    """
    probe = f"{env.solr.deploy_to}/releases/{date}/{PROBE.name}"
    return lambda host: line("{} {} {}", env.deploy.python, probe,
                             json.dumps(question(host, "follow")))


def heard(outcomes, key):
    """host → what the probe said of `key`, once nobody failed."""
    return {host: outcome.value.get(key, {}) for host, outcome in outcomes.check().items()}


def compare(fleet):
    """Slaves fetch what their master has, and have the same. Failed, naming them, if not.

    A Solr that is written to counts what it has opened, a moment later than it has committed it:
    what differs is asked again.
    """
    for pause in (1, 3, 0):
        wrong = differences(fleet)
        if not wrong:
            return
        time.sleep(pause)
    raise Failed("\n".join(wrong))


def differences(fleet):
    """How slaves, once they have fetched, differ from their master: a line for each core."""
    master = cores.master(fleet.inventory.hosts)
    had = heard(ask(fleet.only([master]), "check", step="ask"), "cores")[master]
    slaves = fleet.having(cores.SLAVE)
    values = {"masters": had, "deadline": PATIENCE}
    has = heard(ask(slaves, "fetch", values, step="replicate"), "cores")
    return [
        f"{host.name}: core {core} has {own['documents']} documents, "
        f"{master.name} has {had[core]['documents']} of the same commit"
        for host, found in has.items() for core, own in found.items()
        if own["version"] == had[core]["version"] and own["documents"] != had[core]["documents"]
    ]
