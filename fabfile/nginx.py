"""nginx: rendered from servers.json, checked, deployed as a release of its own."""

import re
import subprocess
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.exceptions import TemplateSyntaxError, UndefinedError

from . import artifact, services
from .env import ROOT, env
from .errors import Failed, NotInstalled, Reverted, Stop, Stranded, Usage
from .fleet import once
from .lock import locked
from .prove import prove_url
from .release import Releases
from .shell import line

on_nginx = {"roles": ["nginx"]}


def word(value):
    """A template filter: the value if it is one plain word of a configuration. Usage if not."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_./:-]+", text):
        raise Usage(f"templates/nginx: {text!r} from servers.json or fabric.yml is no plain word")
    return text


templates = Environment(
    loader=FileSystemLoader(ROOT / "templates/nginx"), undefined=StrictUndefined,
    keep_trailing_newline=True, trim_blocks=True,
)
templates.filters["word"] = word


def render(host, hosts):
    """file name → text: the configuration of one nginx host, the same bytes for the same facts.

    `fingerprint` in a template is the hash of all of it, for the proof of what nginx runs.
    """
    def rendered(fingerprint):
        facts = {
            "host": host, "env": env, "fingerprint": fingerprint,
            "hosts": lambda role: [other for other in hosts if role in other.roles],
        }
        names = templates.list_templates(extensions=["j2"])
        return {name.removesuffix(".j2"): filled_in(name, facts) for name in names}

    return rendered(fingerprint(rendered("")))


def filled_in(name, facts):
    """One template's text. Usage, with its line, if it can't be rendered."""
    try:
        return templates.get_template(name).render(facts)
    except TemplateSyntaxError as error:
        raise Usage(f"templates/nginx/{name}: line {error.lineno}: {error.message}") from error
    except UndefinedError as error:
        raise Usage(f"templates/nginx/{name}: {error.message}") from error


def fingerprint(files):
    """What stands for a configuration: a hash of its files."""
    joined = "\0".join(f"{name}\0{text}" for name, text in sorted(files.items()))
    return sha256(joined.encode()).hexdigest()[:16]


def fingerprint_of(host):
    """The fingerprint that a host's nginx answers with once it runs today's configuration."""
    return re.search(r'"release": "(\w*)"', render(host, env.inventory.hosts)["site.conf"])[1]


@once(**on_nginx, help={"out": "The folder to write to: one folder in it for each host."})
def render_nginx(fleet, out="build/nginx"):
    """Render the configuration of each nginx host from servers.json; reaches no host."""
    for host in fleet.hosts:
        write(Path(out, host.name), render(host, fleet.inventory.hosts))
        fleet.say(f"rendered   {Path(out, host.name)}", host)


def write(folder, files):
    """Writes name → text into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@once(**on_nginx)
def check_nginx(fleet):
    """Let nginx itself check the rendered configuration, here, in a scratch folder."""
    check(fleet)


def check(fleet):
    """`nginx -t` for each host. Failed, with nginx's own file and line, if one is wrong."""
    for host in fleet.hosts:
        said = complaint(host, fleet.inventory.hosts)
        if said:
            raise Failed(f"{host.name}: nginx refuses the configuration\n{said}")
    fleet.say(f"check      {len(fleet.hosts)} configurations are accepted by nginx")


def complaint(host, hosts):
    """What nginx has against a host's configuration; '' for nothing.

    Addresses that this machine does not have are stood in for: only they differ from the real one.
    """
    hosts = [replace(other, private_dns="127.0.0.1") for other in hosts]
    with tempfile.TemporaryDirectory(prefix="nginx") as scratch:
        for folder in ("run", "logs"):
            Path(scratch, folder).mkdir()
        files = render(replace(host, private_dns="127.0.0.1"), hosts)
        listen = rf"\1 unix:{scratch}/run/\2"
        write(Path(scratch, "nginx"), {
            name: re.sub(r"(\blisten) [^;\s]*?(\d+)(?=[;\s])", listen, text)
            for name, text in files.items()
        })
        return tested(scratch)


def tested(prefix):
    """Runs `nginx -t` on prefix/nginx/nginx.conf. NotInstalled if there is no nginx here."""
    command = ["nginx", "-t", "-q", "-p", prefix, "-c", "nginx/nginx.conf", "-e", "logs/e"]
    path = {"PATH": f"{Path('/usr/sbin')}:{Path('/usr/bin')}:{Path('/bin')}"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=path)
    except FileNotFoundError as error:
        raise NotInstalled("nginx is not here to check: apt-get install nginx") from error
    return done.stderr.strip() if done.returncode else ""


@once(**on_nginx)
def deploy_nginx(fleet):
    """Stage, check, switch and reload the configuration; the old one is back if anything fails."""
    check(fleet)
    releases = Releases(fleet, env.nginx.deploy_to, f"deploy_nginx {env.deploy_date}")
    releases.call("setup")
    before = releases.preflight()
    with locked(releases):
        stage(releases)
        test_on_hosts(releases)
        switch(releases, before)
        releases.outcomes("clean", {"KEEP": env.deploy.keep})


def stage(releases):
    """Each host gets its own configuration as an artifact."""
    for host in releases.fleet.hosts:
        files = render(host, env.inventory.hosts)
        built = artifact.from_files(
            {name: text.encode() for name, text in files.items()},
            cache=Path.home() / ".cache/fab/nginx",
        )
        releases.on(releases.fleet.only([host])).stage(built)


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
    """Publish, reload, prove, commit; or back to the configuration from before, reloaded."""
    fleet = releases.fleet
    try:
        releases.publish(env.deploy_date)
        reload_and_prove(fleet)
        releases.commit(env.deploy_date)
    except (Stop, KeyboardInterrupt) as error:
        fleet.say(f"going back: {error or 'interrupted'}")
        releases.revert().check()
        try:
            reload(fleet.only(host for host in fleet.hosts if before[host].date("current")))
        except Stop as stop:
            raise Stranded(f"{stop}\nafter: {error}") from error
        raise Reverted(f"{error or 'interrupted'}\nthe old configuration is back") from error


def reload(fleet):
    """nginx takes the configuration that `current` names now; it is started where it was not."""
    command = services.privileged(services.manager().reload(env.nginx.unit))
    fleet.run(command, step="reload", deadline=env.services.deadline).check()


def reload_and_prove(fleet):
    """Reloads, then asks each nginx for the fingerprint of what it runs."""
    reload(fleet)
    urls = {
        host: f"http://{host.private_dns}:{env.nginx.port}/__nginx__" for host in fleet.hosts
    }
    prove_url(fleet, urls, {host: fingerprint_of(host) for host in fleet.hosts})
