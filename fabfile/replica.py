"""The files of a rehearsal: a copy of this toolkit whose inventory and fabric.yml have the shape of
the user's own, and a stand-in for their application.
"""

import json
import shutil
import urllib.parse
from dataclasses import asdict

import yaml

from . import artifact
from .env import ROOT, env

STAND_IN = ROOT / "sandbox/rehearsal"
DEPLOY_TO = "site"
UNIT = """[{kind}:{name}]
{socket}
command=/bin/sh -c 'cd -P "{{{{ deploy_to }}}}/current" && exec python3 serve.py {verb}; sleep 1'
{numbers}
user={{{{ user }}}}
environment=HOME="{{{{ home }}}}"
startsecs=1
startretries=1
stopwaitsecs=10
redirect_stderr=true
stdout_logfile={{{{ home }}}}/logs/{name}.log
"""


def build(folder, hosts):
    """Writes them for these hosts."""
    for name in ("fabfile", "sandbox", "templates"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copy(STAND_IN / "session.j2", folder / "sandbox/session.j2")
    shutil.copy(STAND_IN / "race.py", folder)
    write(folder / "servers.json", json.dumps([entry(host) for host in hosts], indent=2))
    write(folder / "fabric.yml", yaml.safe_dump(settings()))
    write_units(folder / "templates/supervisor")
    write_site(folder / "site")


def write(path, text):
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_units(folder):
    """A program for each of the user's units, in place of their own templates."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, unit in env.units.items():
        write(folder / f"{name}.conf.j2", program(name, unit))


def write_site(folder):
    """The repository of the stand-in: a program, and files for it to be some size."""
    shutil.copytree(STAND_IN, folder, ignore=shutil.ignore_patterns("*.j2", "race.py"))
    for number in range(40):
        write(folder / f"pages/{number}.txt", f"page {number}\n" * 200)
    artifact.make_repository(folder)


def settings():
    """fabric.yml: the user's as to the fleet's shape, ours as to the application."""
    return {
        "tasks": {"auto_dash_names": False},
        "deploy": {
            "application": "rehearsal", "repository": "site", "deploy_to": DEPLOY_TO,
            "roles": list(env.deploy.roles), "keep": env.deploy.keep, "lease": 30,
            "shared_folders": list(env.deploy.shared_folders),
            "carry": ["stamp", "servers.json"], "migrate": "python3 serve.py migrate",
        },
        "units": {name: stand_in(name, unit) for name, unit in env.units.items()},
        "fleet": {"ssh_config": ["crowd.ssh_config", ".sandbox/ssh_config"],
                  "pool_size": env.fleet.pool_size},
        "nginx": asdict(env.nginx),
        "prove": {"trial": 10, "health": 5},
    }


def entry(host):
    """A host as servers.json has it."""
    return {name: value for name, value in asdict(host).items() if value is not None}


def port(unit):
    """Where a unit answers HTTP; None where it does not."""
    url = unit.release or unit.health
    return (urllib.parse.urlsplit(url.replace("{address}", "h")).port or 80) if url else None


def stand_in(name, unit):
    """The settings of the unit that stands in for one of the user's; where that is drained before
    a restart, so is this one, which has nothing to end.
    """
    kept = {"roles": list(unit.roles), "processes": unit.processes}
    if unit.drain:
        kept["drain"] = "python3 serve.py drain"
    if port(unit):
        asked = {"health": unit.health, "release": unit.release}
        return {**kept, **asked, "trial": "python3 serve.py {socket}"}
    return {**kept, "trial": "python3 serve.py check", "ask": f"python3 serve.py ask {name}"}


def program(name, unit):
    """Its supervisor program, a template."""
    number = port(unit)
    socket = f"socket=tcp://{{{{ host.private_dns }}}}:{number}" if number else ""
    numbers = f"process_name=%(program_name)s_%(process_num)d\nnumprocs={unit.processes}"
    return UNIT.format(
        name=name, socket=socket, kind="fcgi-program" if number else "program",
        verb="fd" if number else f"worker {name}", numbers=numbers if unit.processes > 1 else "")
