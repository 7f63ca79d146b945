"""nginx: rendered from servers.json, checked, deployed as a release of its own."""

import difflib
import os
import re
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from . import artifact, cores, corpus, nginx_proof, services, templates
from .env import ROOT, env
from .errors import Failed, NotInstalled, Usage
from .fleet import once
from .lock import locked
from .prove import prove_fingerprints
from .release import Releases
from .shell import line
from .switch import all_or_nothing, settle

on_nginx = {"roles": ["nginx"]}
HERE = "127.0.0.1"
RENDERED = ".rendered"  # in the folder of --out: what is in it from here
CORPUS = ROOT / "templates/nginx/search.corpus"


def render(host, hosts):
    """file name → text: the configuration of one nginx host, the same bytes for the same facts.

    Usage where a template can't be filled in, or would be without sense.
    """
    if "nginx" not in host.roles:
        raise Usage(f"{host.name} does not have the role nginx, so there is nothing to render")
    if not any("web" in other.roles for other in hosts):
        raise Usage("servers.json: no host has the role web, to which nginx could send visitors")
    return filled_in(host, hosts, fingerprint(host, hosts))


def filled_in(host, hosts, fingerprint):
    """The files with this fingerprint in them."""
    facts = {
        "host": host, "env": env, "fingerprint": fingerprint,
        "hosts": lambda role: [other for other in hosts if role in other.roles],
    }
    return {
        name.removeprefix("nginx/").removesuffix(".j2"): templates.fill_in(name, facts)
        for name in templates.names("nginx/")
    }


def fingerprint(host, hosts):
    """What an nginx answers with once it runs this configuration: a hash of all its files."""
    files = sorted(filled_in(host, hosts, "").items())
    joined = "\0".join(f"{name}\0{text}" for name, text in files)
    return sha256(joined.encode()).hexdigest()[:16]


@once(**on_nginx, help={
    "out": "The folder to write to: one folder in it for each host.",
    "check": "Let nginx check what was rendered.",
    "diff": "Write nothing; show how this folder differs, and exit with 1 if it does.",
})
def render_nginx(fleet, out="build/nginx", check=False, diff=""):
    """Render the configuration of each nginx host from servers.json; reaches no host."""
    files = {f"{host.name}/{name}": text for host in fleet.hosts
             for name, text in render(host, fleet.inventory.hosts).items()}
    if diff:
        return show_differences(fleet, Path(diff), files)
    try:
        put(fleet, Path(out), files)
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"render_nginx --out {out}: {error}") from None
    if check and not env.dry:
        check_all(fleet)


def put(fleet, out, files):
    """The rendered files into a folder, in place of all that an earlier run rendered there."""
    old = outdated(fleet, out, files)
    for host in fleet.hosts:
        fleet.say(f"rendered   {out / host.name}", host)
    for path in old:
        fleet.say(f"removed    {out / path}")
    if env.dry:
        return
    write(out, files | {RENDERED: "".join(f"{path}\n" for path in sorted(
        {*files, *rendered_before(out)} - {*old}))})
    for path in old:
        (out / path).unlink(missing_ok=True)
        with suppress(OSError):  # there is something else in it
            (out / path).parent.rmdir()


def rendered_before(folder):
    """The paths of what was rendered to a folder."""
    path = folder / RENDERED
    lines = path.read_text().splitlines() if path.exists() else []
    return [name for name in lines if re.fullmatch(r"[\w.-]+/[\w.-]+", name)
            and not name.startswith("..")]


def outdated(fleet, folder, files):
    """Those that are rendered no more: of the chosen hosts, and of hosts that are gone."""
    others = {host.name for host in fleet.inventory.hosts
              if "nginx" in host.roles and host not in fleet.hosts}
    return [path for path in rendered_before(folder)
            if path not in files and path.partition("/")[0] not in others]


def show_differences(fleet, folder, files):
    """What would change in a folder that was rendered before. Failed if anything would."""
    there = {str(path.relative_to(folder)) for host in fleet.hosts
             for path in (folder / host.name).rglob("*") if path.is_file()}
    there |= {path for path in outdated(fleet, folder, files) if (folder / path).exists()}
    old = {path: (folder / path).read_text() for path in there}
    for path in sorted(old | files):
        lines = [found.get(path, "").splitlines() for found in (old, files)]
        for text in difflib.unified_diff(*lines, f"{folder}/{path}", path, lineterm=""):
            fleet.say(text)
    if old != files:
        raise Failed(f"{folder} is not what servers.json and the templates give now")


def write(folder, files):
    """Writes path → text below a folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@once(**on_nginx)
def check_nginx(fleet):
    """Let nginx itself check the rendered configuration, here, in a scratch folder."""
    check_all(fleet)


def check_all(fleet):
    """`nginx -t` for each host. Failed, with nginx's own file and line, if one is wrong."""
    for host in fleet.hosts:
        said = complaint(host, fleet.inventory.hosts)
        if said:
            raise Failed(f"{host.name}: nginx refuses the configuration\n{said}")
    fleet.say(f"check      nginx accepts: {' '.join(host.name for host in fleet.hosts)}")


def complaint(host, hosts):
    """What nginx has against a host's configuration; '' for nothing.

    Addresses that this machine does not have are stood in for: only they differ from the real one.
    """
    files = render(here(host), [here(other) for other in hosts])
    with tempfile.TemporaryDirectory(prefix="nginx") as scratch:
        for folder in ("run", "logs"):
            Path(scratch, folder).mkdir()
        write(Path(scratch, "nginx"), {name: unbound(text) for name, text in files.items()})
        return tested(scratch).replace(f"{scratch}/", "")


def here(host):
    """The host with addresses that this machine can look up."""
    return replace(host, private_dns=HERE, public_dns=host.public_dns and HERE)


def unbound(text):
    """A configuration that listens on a Unix socket for each address, so that any may be named."""
    def socket(match):
        return f"{match[1]} unix:run/{re.sub(r'[^0-9A-Za-z]', '_', match[2])}"

    return re.sub(r"(\blisten) +([^\s;]*\b\d+)(?=[\s;])", socket, text)


def tested(prefix):
    """What `nginx -t` says of prefix/nginx/nginx.conf; '' if all is well. NotInstalled where there
    is no nginx on this machine.
    """
    command = ["nginx", "-t", "-q", "-p", prefix, "-c", "nginx/nginx.conf", "-e", "logs/e"]
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=prefix,
                              env={"PATH": path})
    except FileNotFoundError as error:
        raise NotInstalled("nginx is not here to check: apt-get install nginx") from error
    except subprocess.TimeoutExpired:
        return "nginx -t took more than a minute: does it look up a name that nobody answers for?"
    return done.stderr.strip() if done.returncode else ""


@once(**on_nginx)
def prove_nginx(fleet):
    """Prove, with a real nginx and stubs, that no request reaches a Solr that it is not for."""
    hosts = fleet.inventory.hosts
    solrs = [(host, cores.role(host)) for host in hosts if "solr" in host.roles]
    if not solrs:
        raise Usage("prove_nginx: servers.json has no Solr to prove anything of")
    requests = corpus.read(CORPUS.read_text(), "templates/nginx/search.corpus")
    for host in fleet.hosts:
        found = nginx_proof.prove(render(host, hosts), solrs, env.solr.port, requests, fleet.say)
    fleet.table("", ("request", "reaches"), [
        (request.line, corpus.reached(heard)) for request, heard in found])


@once(**on_nginx)
def deploy_nginx(fleet):
    """Stage, check, switch and reload the configuration; the old one is back if anything fails."""
    releases = Releases(fleet, env.nginx.deploy_to, f"deploy_nginx {env.deploy_date}")
    built = {host: packed(host) for host in fleet.hosts}
    releases.call("setup")
    before = releases.preflight()
    with locked(releases) as taken:
        before = settle(releases, before, taken, follow)
        releases.stage(built)
        test_on_hosts(releases)
        switch(releases, before)
        releases.clean()


def packed(host):
    """A host's configuration as an artifact."""
    files = render(host, env.inventory.hosts)
    return artifact.from_files({name: text.encode() for name, text in files.items()},
                               cache=Path.home() / ".cache/fab/nginx")


def test_on_hosts(releases):
    """The staged configuration before the host's own nginx, with its own addresses."""
    path = f"{env.nginx.deploy_to}/releases/{env.deploy_date}/nginx.conf"
    command = line(
        "mkdir -p run logs && PATH=$PATH:/usr/sbin:/sbin && "
        "{} -t -q -p \"$PWD/\" -c {} -e logs/nginx-error.log",
        env.nginx.command, path,
    )
    releases.fleet.run(services.privileged(command), step="nginx -t").check()


def switch(releases, before):
    """Publish, reload, prove; then every host keeps it, or all go back to what they had."""
    with all_or_nothing(releases, before, env.deploy_date, follow) as switched:
        switched += releases.fleet.hosts
        releases.publish(env.deploy_date, lambda host: following(host, before))
        reload_and_prove(releases.fleet)


def reload_and_prove(fleet):
    """nginx takes the configuration that `current` names now, being started where it was not;
    then each has to answer with the fingerprint of what it runs.
    """
    command = services.privileged(services.manager().reload(env.nginx.unit))
    fleet.run(command, step="reload", deadline=env.services.deadline).check()
    prove_fingerprints(
        fleet, {host: fingerprint(host, env.inventory.hosts) for host in fleet.hosts})


def follow(fleet, before):
    """nginx runs what a host went back to."""
    fleet.run(lambda host: following(host, before), step="reload",
              deadline=env.services.deadline).check()


def following(host, before):
    """The command for that: a reload; where there was no configuration before, a stop."""
    manager = services.manager()
    had = before[host].date("current")
    return services.privileged((manager.reload if had else manager.stop)(env.nginx.unit))
