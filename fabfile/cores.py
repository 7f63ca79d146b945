"""The cores of templates/solr, rendered for a host: a folder there is a core on every Solr host."""

from hashlib import sha256
from pathlib import Path

from . import templates
from .env import ROOT, env
from .errors import Usage

FOLDER = ROOT / "templates/solr"
MASTER, SLAVE = "solr_master", "solr_slave"


def names():
    """The cores, in order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/conf"))


def render(host, hosts):
    """file name → text: what a release has for this host. Usage if servers.json does not say which
    host is the master, or a template can't be filled in.
    """
    found = {"host": host, "env": env, "master": master(hosts), "role": role(host)}
    files = {}
    for core in names():
        blank = filled_in(core, found | {"fingerprint": ""})
        files |= filled_in(core, found | {"fingerprint": fingerprint(blank)})
    return files


def filled_in(core, facts):
    """The files of one core: those that end in .j2 filled in, the others as they are."""
    texts = {}
    for path in sorted(path for path in Path(FOLDER, core).rglob("*") if path.is_file()):
        name = str(path.relative_to(FOLDER))
        if name.endswith(".j2"):
            text = templates.fill_in(f"solr/{name}", facts | {"core": core})
        else:
            text = path.read_text()
        texts[name.removesuffix(".j2")] = text
    return texts


def fingerprint(files):
    """What stands for the files of a core, and is echoed by a Solr that has loaded them."""
    joined = "\0".join(f"{name}\0{text}" for name, text in sorted(files.items()))
    return sha256(joined.encode()).hexdigest()[:16]


def master(hosts):
    """The one host with the role solr_master. Usage, naming them, if there is not one."""
    masters = [host for host in hosts if MASTER in host.roles]
    if len(masters) != 1:
        found = ", ".join(host.name for host in masters) or "none has it"
        raise Usage(f"servers.json: exactly one host must have the role {MASTER}: {found}")
    return masters[0]


def role(host):
    """'master' or 'slave'. Usage for a host that is neither, or both."""
    found = [word for word in (MASTER, SLAVE) if word in host.roles]
    if len(found) != 1:
        raise Usage(f"servers.json: {host.name} must have one of the roles {MASTER}, {SLAVE}")
    return found[0].removeprefix("solr_")
