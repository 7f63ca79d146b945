"""What other tools do to deploy the same: each gives its command, or none where it is missing.

They unpack a whole archive that is ready, or fetch from git, and switch a link; none of them looks
at what it has unpacked, keeps a record, or could go back by itself.
"""

import getpass
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from bench.network import inside

WHOLE = "d=theirs/$(date +%s%N); mkdir -p $d && tar -xzf - -C $d && ln -sfn $PWD/$d theirs/current"
DELTA = ("d=theirs/$(date +%s%N); cp -al $(readlink theirs/current) $d && "
         "tar -xzf - --unlink-first -C $d && ln -sfn $PWD/$d theirs/current")


def unpack(archive):
    """The same of an archive on the host. Each tool has its own: what another one has put there
    must not save it the way.
    """
    return WHOLE.replace("-xzf -", f"-xzf {archive}")


def threading_group(bench):
    """Fabric 3 as its own documentation would have it: a ThreadingGroup, put and run."""
    program = bench.folder / "group.py"
    program.write_text(f"""
from fabric import Config, ThreadingGroup
from paramiko import SSHConfig
config = Config(ssh_config=SSHConfig.from_path({str(bench.folder / ".sandbox/ssh_config")!r}))
hosts = ThreadingGroup(*{bench.addresses!r}, config=config)
hosts.put({str(bench.tar)!r}, "group.tar.gz")
hosts.run({unpack("group.tar.gz")!r}, hide=True, in_stream=False)
hosts.close()
""")
    return [sys.executable, str(program)]


def ansible(bench):
    """Ansible by hand: unpack into a new folder, switch the link."""
    (bench.folder / "hosts").write_text("\n".join(bench.addresses))
    (bench.folder / "play.json").write_text(json.dumps([{
        "hosts": "all", "gather_facts": False, "vars": {"at": f"theirs/{bench.number}"},
        "tasks": [
            {"ansible.builtin.file": {"path": "{{ at }}", "state": "directory"}},
            {"ansible.builtin.unarchive": {"src": str(bench.tar), "dest": "{{ at }}"}},
            {"ansible.builtin.file": {"src": "{{ at }}", "dest": "current", "state": "link",
                                      "force": True}},
        ],
    }]))
    program = Path(sys.executable).with_name("ansible-playbook")
    return [str(program), "-i", str(bench.folder / "hosts"), "-f", "32", "--ssh-common-args",
            f"-F {bench.folder}/.sandbox/ssh_config", str(bench.folder / "play.json")]


def pyinfra(bench):
    """pyinfra: put the archive, run the same command."""
    sandbox = bench.folder / ".sandbox"
    data = {"ssh_port": 2222, "ssh_user": getpass.getuser(), "ssh_key": str(sandbox / "key"),
            "ssh_known_hosts_file": str(sandbox / "known_hosts")}
    (bench.folder / "hosts.py").write_text(f"bare = {[(host, data) for host in bench.addresses]!r}")
    (bench.folder / "put.py").write_text(f"""
from pyinfra.operations import files, server
files.put(src={str(bench.tar)!r}, dest="pyinfra.tar.gz")
server.shell(commands=[{unpack("pyinfra.tar.gz")!r}])
""")
    return of_uv("pyinfra", "pyinfra", "--yes", str(bench.folder / "hosts.py"),
                 str(bench.folder / "put.py"))


def fab_classic(bench):
    """Fabric 1, as it lives on: put and run, in parallel."""
    program = bench.folder / "classic.py"
    program.write_text(f"""
from fabric.api import env, parallel, put, run
env.update(hosts={bench.addresses!r}, port="2222", pool_size=32, disable_known_hosts=True,
           key_filename={str(bench.folder / ".sandbox/key")!r}, abort_on_prompts=True)
@parallel
def deploy():
    put({str(bench.tar)!r}, "classic.tar.gz")
    run({unpack("classic.tar.gz")!r})
""")
    return of_uv("fab-classic", "fab", "--fabfile", str(program), "--hide=everything", "deploy")


def capistrano(bench):
    """Capistrano 3 with git. Its hosts fetch from this very disk, which costs them no network."""
    if not shutil.which("cap"):
        return None
    folder = bench.folder / "capistrano"
    (folder / "config/deploy").mkdir(parents=True, exist_ok=True)
    (folder / "Capfile").write_text("""
require "capistrano/setup"
require "capistrano/deploy"
require "capistrano/scm/git"
install_plugin Capistrano::SCM::Git
SSHKit::Command.prepend(Module.new { def to_command = super.gsub("@HOME@", "$HOME") })
""")
    (folder / "config/deploy.rb").write_text(f"""
set :application, "site"
set :repo_url, "file://{bench.repository}"
set :branch, "HEAD"
set :deploy_to, "@HOME@/theirs/capistrano"
set :ssh_options, port: 2222, keys: ["{bench.folder}/.sandbox/key"], config: false,
    user_known_hosts_file: "{bench.folder}/.sandbox/known_hosts"
SSHKit::Backend::Netssh.configure {{ |ssh| ssh.pty = false }}
""")
    servers = "".join(f'server "{host}", roles: [:app]\n' for host in bench.addresses)
    (folder / "config/deploy/production.rb").write_text(servers)
    return ["sh", "-c", 'cd "$0" && exec cap production deploy', str(folder)]


@cache
def has(package, program):
    """Whether uv can give a program; downloaded here, where nothing is timed, if it can be."""
    offline = ["--offline"] if inside() else []
    command = ["uv", "tool", "run", *offline, "--from", package, program, "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fetch_tools():
    """Downloads what is not here yet."""
    has("pyinfra", "pyinfra")
    has("fab-classic", "fab")


def of_uv(package, program, *words):
    """A command of a tool that uv keeps in an environment of its own."""
    if not has(package, program):
        return None
    return ["uv", "tool", "run", "--offline", "--from", package, program, *words]


RIVALS = {
    "Fabric's ThreadingGroup": threading_group,
    "fab-classic": fab_classic,
    "pyinfra": pyinfra,
    "Capistrano": capistrano,
    "Ansible": ansible,
}
