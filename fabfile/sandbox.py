"""sandbox_up, sandbox_status, sandbox_down: the fleet of servers.json on this very machine."""

import fcntl
import ipaddress
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

from . import launcher, machine
from .env import env
from .errors import Failed, Locked, NotInstalled, Refused
from .fleet import once
from .loopback import Loopback
from .shell import line

SECRETS = ("SECRET_KEY", "DATABASE_PASSWORD", "MONITOR_PASSWORD")
AWKWARD = re.compile(r"[^\w/.,:@+=~ -]")  # to sshd, supervisord, nginx or the shell


@once(everything=True)
def sandbox_up(fleet):
    """Start each host on this machine: a real sshd, and the real servers of its roles."""
    root = folder(fleet.inventory)
    check(root, fleet.hosts)
    if env.dry:
        return fleet.map(Loopback.start, step="start sshd and the servers of its roles")
    with alone(root):
        password = prepare(root)
        solr, missing = ready_solr(fleet)
        outcomes = fleet.map(lambda host: loopback(root, host).start(password, solr), step="start")
        write_ssh_files(root, fleet.inventory.hosts)
    outcomes.check()
    show(fleet, root)
    fleet.say(line("try: ssh -F {} {}", root / "ssh_config", fleet.hosts[0].private_dns))
    if missing:
        raise missing


def ready_solr(fleet):
    """The launcher.Solr that hosts with that role get, or None; and the NotInstalled for which
    they have to do without, told at the end: all others are up."""
    if not fleet.having("solr").hosts:
        return None, None
    try:
        hosts = [host for host in fleet.inventory.hosts if "solr" in host.roles]
        return launcher.ready(hosts, fleet.say), None
    except NotInstalled as stop:
        return None, NotInstalled(f"all is up but Solr. {stop}")


@once(everything=True)
def sandbox_status(fleet):
    """What runs on each host of the sandbox."""
    show(fleet, folder(fleet.inventory))


@once(everything=True)
def sandbox_down(fleet):
    """End every process of the sandbox and remove all its files."""
    root = folder(fleet.inventory)
    if not root.exists():
        return fleet.say(f"no sandbox is up beside {fleet.inventory.path}")
    with alone(root):
        fleet.map(lambda host: loopback(root, host).end(), step="end").check()
        if not env.dry:
            tidy(root, fleet.inventory.hosts)


def folder(inventory):
    """The sandbox's folder, beside the inventory file in use."""
    return Path(os.path.abspath(inventory.path)).parent / ".sandbox"


def loopback(root, host):
    """`host` as a Loopback: with a supervisord if units of the application run there."""
    units = {role for unit in env.units.values() for role in unit.roles}
    return Loopback(root, host.name, host, supervised=units & set(host.roles))


def check(root, hosts):
    """Refused if these hosts cannot be started here, NotInstalled if a program is missing."""
    if found := AWKWARD.search(str(root)):
        raise Refused(f"the sandbox cannot live in {root}: move it to a path without {found[0]!r}")
    for host in hosts:
        if not is_loopback(host.private_dns):
            raise Refused(
                f"{host.name}: {host.private_dns} is not a loopback address (127.0.0.0/8): "
                "the sandbox starts no other host; give it an inventory of its own with -I FILE"
            )
        if host.user not in (None, machine.login()):
            raise Refused(
                f"{host.name}: {host.user} cannot log in to a sandbox started by "
                f"{machine.login()}; leave out its user"
            )
    machine.check_programs({role for host in hosts for role in host.roles} - {"solr"})


def is_loopback(address):
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, which may mean anything tomorrow


@contextmanager
def alone(root):
    """Hold the sandbox against a second sandbox_up or sandbox_down; Locked if there is one.
    What is locked is the folder around it, which is there before and after."""
    descriptor = os.open(root.parent, os.O_RDONLY)
    try:
        lock(descriptor, root)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor, root):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = f"another sandbox_up or sandbox_down is at work on {root}: let it end first"
        raise Locked(text) from None


def prepare(root):
    """Make what all hosts share: the client's key, the site's secrets. The database's password."""
    (root / "shared").mkdir(parents=True, exist_ok=True)
    machine.make_key(root / "key", "sandbox")
    path = root / "shared/.env"
    if not path.exists():
        lines = [f"{name}={secrets.token_urlsafe(32)}\n" for name in SECRETS]
        machine.write(path, "".join(lines), 0o600)
    found = re.search(r"^DATABASE_PASSWORD=(\S+)$", path.read_text(), re.MULTILINE)
    if not found:
        raise Failed(f"{path}: no DATABASE_PASSWORD; add a line DATABASE_PASSWORD=…")
    return found[1].strip("'\"")


def write_ssh_files(root, hosts):
    """known_hosts and ssh_config for the hosts that have a key."""
    keys = {host: root / f"state/{host.name}/host_key.pub" for host in hosts}
    there = [host for host in hosts if keys[host].exists()]
    lines = [f"{known_as(root, host)} {keys[host].read_text()}" for host in there]
    machine.write(root / "known_hosts", "".join(lines))
    machine.write(root / "ssh_config", "\n".join(ssh_block(root, host) for host in there))


def known_as(root, host):
    """A host's name in known_hosts: its address, with the port where that is not 22."""
    port = loopback(root, host).port
    return host.private_dns if port == 22 else f"[{host.private_dns}]:{port}"


def ssh_block(root, host):
    """The lines of ssh_config for a host."""
    return f"""Host {host.private_dns}
    Port {loopback(root, host).port}
    User {machine.login()}
    IdentityFile "{root}/key"
    IdentitiesOnly yes
    UserKnownHostsFile "{root}/known_hosts"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""


def show(fleet, root):
    """The table of hosts, whether their sshd is up, and the programs of their supervisord."""
    rows = [row(loopback(root, host)) for host in fleet.hosts]
    fleet.table("sandbox", ("host", "address", "sshd", "programs"), rows)


def row(one):
    """A host's line in that table."""
    sshd = "up" if one.is_up(one.sshd) else "down"
    programs = [f"{name} {state}" for name, state in one.programs().items()]
    supervisord = ["supervisord down"] if one.supervised and not one.is_up(one.supervisord) else []
    return one.name, f"{one.address}:{one.port}", sshd, ", ".join(supervisord or programs)


def tidy(root, hosts):
    """After some hosts have ended: the others stay known to ssh. After all: nothing is left, nor
    of hosts that servers.json no longer has."""
    left = set(os.listdir(root / "state")) if (root / "state").exists() else set()
    if left & {host.name for host in hosts}:
        return write_ssh_files(root, hosts)
    for name in left:
        Loopback(root, name).end()
    shutil.rmtree(root)
