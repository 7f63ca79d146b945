"""Making hosts fit for a deploy: their keys, folders, units and shared files."""

from pathlib import Path

from . import services
from .application import application, on_app_hosts
from .env import env
from .errors import Refused, Usage
from .fleet import once
from .progress import agreed
from .shell import line
from .ssh import fingerprint, learn


@once(everything=True, help={"yes": "Do not ask before a key is learned."})
def trust_hosts(fleet, yes=False):
    """Learn the host keys of hosts, showing their fingerprints."""
    found = fleet.map(fleet.session.addresses.offered_key, step="keys").check()
    if env.dry:
        return
    news = {host: o.value for host, o in found.items() if not o.value.known}
    for host, outcome in found.items():
        word = "known" if outcome.value.known else "new"
        fleet.say(f"{word}: {fingerprint(outcome.value.key)}", host)
    if news and not (yes or agreed(f"Trust {len(news)} new keys? [y/N] ")):
        raise Refused("nothing was learned; compare the fingerprints and add --yes")
    for offer in news.values():
        learn(offer)


@on_app_hosts
def setup(fleet):
    """Make the folders and install the units; again after a change of either."""
    releases = application(fleet, "setup")
    releases.call("setup")
    where = fleet.run("pwd; id -un", step="").check()
    hosts = [host for host in fleet.hosts if env.units_of(host)]

    def install(host):
        home, user = ("HOME", "LOGIN") if env.dry else where[host].stdout.splitlines()
        deploy_to = str(Path(home, env.deploy.deploy_to))
        return services.install(services.units_for(host, deploy_to, home, user))

    fleet.run(install, hosts=hosts, step="units").check()


@on_app_hosts
def check(fleet):
    """What `deploy` would find: reachable, set up, room, lock, current release. Changes nothing."""
    found = application(fleet, "check").preflight()
    rows = [
        (host.name, reply.get("current", "-"), f"{int(reply.get('free_kb', '0')) // 1024} MB",
         reply.get("lock_owner", "free"), reply.get("pending", "-"))
        for host, reply in found.items()
    ]
    fleet.table("", ("host", "current", "free", "lock", "not committed"), rows)


@on_app_hosts(positional=["file"], help={"name": "Its path below shared/."})
def put_shared(fleet, file, name=""):
    """Put a local file into shared/ on each host that has units, mode 0600."""
    source, name = Path(file), name or Path(file).name
    if not source.is_file():
        raise Usage(f"put_shared: there is no file {file}")
    if name not in env.deploy.shared_files:
        raise Usage(f"put_shared: {name} is not one of deploy.shared_files")
    place = f"{env.deploy.deploy_to}/shared/{name}"
    command = line(
        "umask 077 && mkdir -p {} && cat > {} && sync {} && mv -T {} {}",
        str(Path(place).parent), f"{place}.new", f"{place}.new", f"{place}.new", place,
    )
    hosts = [host for host in fleet.hosts if env.units_of(host)]
    fleet.run(command, hosts=hosts, step="put", stdin=source.read_bytes()).check()
