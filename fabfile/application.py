"""The application on a host: its releases, what they share, and the units that run from them."""

import time
from functools import partial
from pathlib import Path

from . import artifact, services
from .env import ROOT, env
from .errors import Usage
from .fleet import once
from .release import Releases
from .shell import line

on_app_hosts = partial(once, roles=lambda: env.deploy.roles)


def application(fleet, purpose=""):
    """The application's Releases on a fleet. Usage for a host that gets none."""
    strangers = [host.name for host in fleet.hosts if not set(host.roles) & set(env.deploy.roles)]
    if strangers:
        roles = ", ".join(env.deploy.roles)
        raise Usage(f"{', '.join(strangers)}: no role that gets a release (deploy.roles: {roles})")
    return Releases(fleet, env.deploy.deploy_to, purpose, per_host=needs)


def needs(host):
    """What release.sh is told for a host. Those with units have the shared paths and the
    virtualenv; one that only serves static files has no secret and no Python of ours.
    """
    if not env.units_of(host):
        return {}
    return {
        "SHARED_FOLDERS": "\n".join(env.deploy.shared_folders),
        "SHARED_FILES": "\n".join(env.deploy.shared_files),
        "REQUIREMENTS": env.deploy.requirements,
        "PYTHON": env.deploy.python,
        "WHEELS": env.deploy.wheels,
    }


def build(fleet, revision):
    """The artifact of a revision, built here; says what will not be in it."""
    settings = env.deploy
    source = settings.repository
    if (ROOT / source).exists():
        source = ROOT / source
        for path in artifact.dirty(source, settings.subfolder)[:5]:
            fleet.say(f"build      not in {revision}: {path} has changes that are not committed")
    started = time.monotonic()
    built = artifact.build(
        repository=source,
        revision=revision,
        subfolder=settings.subfolder,
        build=settings.build,
        carry={name: carried(name) for name in settings.carry},
        cache=cache(),
    )
    fleet.say(
        f"build      {env.deploy.application} {built.revision[:10]}: {built.files} files, "
        f"{built.bytes / 1e6:.1f} MB  {time.monotonic() - started:.2f} s"
    )
    return built


def carried(name):
    """A file of this repository that travels in the release; servers.json is the one in use."""
    return (env.inventory.path if name == "servers.json" else ROOT / name).read_bytes()


def cache():
    """Where artifacts are kept on this machine."""
    return Path.home() / ".cache" / "fab" / env.deploy.application


def restart(fleet, only=None):
    """Restarts the units of each host, or those of them that are named."""
    command(fleet, "restart", partial(restarting, only=only))


def restart_or_stop(fleet, before):
    """Units follow a host that went back: to a release they are restarted, to none they stop."""
    had = {host: before[host].date("current") for host in fleet.hosts}
    command(fleet.only(host for host in had if had[host]), "restart", restarting)
    command(fleet.only(host for host in had if not had[host]), "stop", stopping)


def command(fleet, step, text):
    """Runs text(host) on the hosts that have units."""
    hosts = [host for host in fleet.hosts if env.units_of(host)]
    if hosts:
        deadline = env.services.deadline + env.services.drain
        fleet.run(text, hosts=hosts, step=step, deadline=deadline).check()


def restarting(host, only=None):
    """The command that drains and restarts the units of a host, or those that are named.

    All at once: none of them waits for another one, and the visitors would wait for all.
    """
    names = [name for name in env.units_of(host) if only is None or name in only]
    commands = [draining(name, host) + restarted(name) for name in names]
    return at_once(commands) if len(commands) > 1 else commands[0]


def at_once(commands):
    """The command that runs others side by side, and fails if one of them does."""
    begun = " ".join(f'({command}) & pids="$pids $!";' for command in commands)
    ended = "for pid in $pids; do wait $pid || failed=$?; done"
    return f"(pids=; {begun} failed=0; {ended}; exit $failed)"


def restarted(name):
    """The command that restarts a unit."""
    return services.privileged(services.manager().restart(name, env.units[name].processes))


def draining(name, host):
    """The command, and a separator, that lets a unit end what it is at; nothing for most units.

    Whatever comes of it, the restart follows. INT tells it so; TERM, a run that was interrupted.
    """
    drain = env.unit_on(name, host).drain
    if not drain:
        return ""
    return line("(cd {} && PATH=.venv/bin:$PATH exec timeout -s INT {} sh -c {}) >&2; ",
                f"{env.deploy.deploy_to}/current", env.services.drain, drain)


def stopping(host):
    """The command that stops the units of a host."""
    manager = services.manager()
    return services.privileged(" && ".join(manager.stop(name) for name in env.units_of(host)))


def way_back(before):
    """host → the command that a host runs itself if it has to go back to what it had."""

    def back(host):
        if not env.units_of(host):
            return ":"
        return restarting(host) if before[host].date("current") else stopping(host)

    return back
