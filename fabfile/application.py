"""The application on a host: its releases, what they share, and the units that run from them."""

from functools import partial

from . import services
from .env import env
from .errors import Usage
from .fleet import once
from .release import Releases

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
    }


def restart(fleet):
    """Restarts the units of each host, one unit after the other in fabric.yml's order."""
    hosts = [host for host in fleet.hosts if env.units_of(host)]
    manager = services.manager()

    def command(host):
        return services.privileged(" && ".join(
            manager.restart(name, env.units[name].processes) for name in env.units_of(host)))

    fleet.run(command, hosts=hosts, step="restart", deadline=env.services.deadline).check()
