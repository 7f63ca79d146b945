"""How long a deploy takes on N hosts, against the floor of plain ssh and against other tools.

    bin/bench [--hosts 1,8,32] [--rounds 3]

Everything runs in one go on a sandbox of bare hosts, in turn, so that the ratios hold on a busy
machine too. A table of medians and ratios is printed; build/bench.json has every figure.
"""

import argparse
import getpass
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FILES, BYTES = 1795, 13_000_000

CONFIG = """
deploy:
  application: bench
  repository: {repository}
  subfolder: ""
  deploy_to: ours
  roles: [bare]
  carry: []
  build: []
  requirements: ""
  shared_folders: []
  shared_files: []
  migrate: ""
"""


class Bench:
    """A sandbox of `count` bare hosts, and a site of many files with one that changes."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count
        self.repository = folder / "site"
        self.tar = folder / "site.tar.gz"
        self.number = 0
        self.skews = []  # milliseconds between the first and the last host's switch
        self.env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        self.write_inventory()
        self.write_site()
        (folder / "bench.yml").write_text(CONFIG.format(repository=self.repository))

    @property
    def addresses(self):
        return [f"127.0.101.{number}" for number in range(1, self.count + 1)]

    def write_inventory(self):
        (self.folder / "servers.json").write_text(json.dumps([
            {"instance_id": f"i-{n:017x}", "public_dns": address, "private_dns": address,
             "name": f"bare{n}", "roles": ["bare"], "port": 2222}
            for n, address in enumerate(self.addresses, 1)
        ]))

    def write_site(self):
        for number in range(FILES - 1):
            path = self.repository / f"d{number % 60}" / f"f{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(BYTES // FILES // 2).hex().encode())
        self.git("init", "--quiet")
        self.change()

    def git(self, *words):
        subprocess.run(["git", "-c", "user.name=b", "-c", "user.email=b@example.org", *words],
                       cwd=self.repository, check=True)

    def change(self):
        """One file changes; the archives for the others are made, outside of what is timed."""
        self.number += 1
        (self.repository / "changed.py").write_text(f"NUMBER = {self.number}\n" * 100)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"change {self.number}")
        self.git("archive", "--format=tar.gz", f"--output={self.tar}", "HEAD")
        self.git("archive", "--format=tar.gz", f"--output={self.tar}.delta", "HEAD", "changed.py")

    def fab(self, *words):
        return [str(BIN / "fab"), "-I", str(self.folder / "servers.json"), "-f",
                str(self.folder / "bench.yml"), *words]

    def ssh(self, command, stdin):
        """OpenSSH to every host at once: the floor."""
        one = 'ssh -F "$1/.sandbox/ssh_config" "$4" "$2" <"$3"'
        hosts = " ".join(self.addresses)
        every = f'printf "%s\\n" {hosts} | xargs -P {self.count} -I @ sh -c "$0" '
        return ["sh", "-c", every + '_ "$1" "$2" "$3" @', one, str(self.folder), command,
                str(stdin)]

    def wipe(self):
        """Nothing is deployed any more, by anybody."""
        self.run(self.ssh("rm -rf ours theirs .fab", "/dev/null"))
        self.run(self.fab("setup"))

    def run(self, command):
        """Seconds that a command took; it has to succeed."""
        started = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        self.skews += map(int, re.findall(r"^switched .* within (\d+) ms", done.stdout, re.M))
        return seconds

    @contextmanager
    def up(self):
        self.run(self.fab("sandbox_up"))
        try:
            yield self
        finally:
            self.run(self.fab("sandbox_down"))


WHOLE = "d=theirs/$(date +%s%N); mkdir -p $d && tar -xzf - -C $d && ln -sfn $PWD/$d theirs/current"
DELTA = ("d=theirs/$(date +%s%N); cp -al $(readlink theirs/current) $d && "
         "tar -xzf - --unlink-first -C $d && ln -sfn $PWD/$d theirs/current")


def threading_group(bench):
    """Fabric 3 as its own documentation would have it: a ThreadingGroup, put and run."""
    program = bench.folder / "group.py"
    program.write_text(f"""
from fabric import Config, ThreadingGroup
from paramiko import SSHConfig
config = Config(ssh_config=SSHConfig.from_path({str(bench.folder / ".sandbox/ssh_config")!r}))
hosts = ThreadingGroup(*{bench.addresses!r}, config=config)
hosts.put({str(bench.tar)!r}, "site.tar.gz")
hosts.run({WHOLE.replace("-xzf -", "-xzf site.tar.gz")!r}, hide=True, in_stream=False)
hosts.close()
""")
    return [sys.executable, str(program)]


def ansible(bench):
    """Ansible by hand: unpack into a new folder, switch the link."""
    if not shutil.which("ansible-playbook", path=str(BIN)):
        return None
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
    return [str(BIN / "ansible-playbook"), "-i", str(bench.folder / "hosts"), "-f", "32",
            "--ssh-common-args", f"-F {bench.folder}/.sandbox/ssh_config",
            str(bench.folder / "play.json")]


def pyinfra(bench):
    """pyinfra: put the archive, run the same command."""
    if not shutil.which("pyinfra", path=bench.env["PATH"]):
        return None
    sandbox = bench.folder / ".sandbox"
    data = {"ssh_port": 2222, "ssh_user": getpass.getuser(), "ssh_key": str(sandbox / "key"),
            "ssh_known_hosts_file": str(sandbox / "known_hosts")}
    (bench.folder / "hosts.py").write_text(f"bare = {[(host, data) for host in bench.addresses]!r}")
    (bench.folder / "put.py").write_text(f"""
from pyinfra.operations import files, server
files.put(src={str(bench.tar)!r}, dest="site.tar.gz")
server.shell(commands=[{WHOLE.replace("-xzf -", "-xzf site.tar.gz")!r}])
""")
    return ["pyinfra", "--yes", str(bench.folder / "hosts.py"), str(bench.folder / "put.py")]


RIVALS = {"ThreadingGroup": threading_group, "pyinfra": pyinfra, "Ansible": ansible}


def rounds(bench, count):
    """name → seconds of each round, everybody in turn."""
    found = {}

    def timed(name, command):
        if command:
            found.setdefault(name, []).append(bench.run(command))

    def all_timed(kind, floor):
        timed(FLOORS[kind], floor)
        timed(f"{kind}: fab deploy", bench.fab("deploy"))
        for name, rival in RIVALS.items():
            timed(f"{kind}: {name}", rival(bench))

    for _ in range(count):
        bench.wipe()
        all_timed("first", bench.ssh(WHOLE, bench.tar))
        bench.change()
        all_timed("one file changed", bench.ssh(DELTA, f"{bench.tar}.delta"))
        timed(FLOORS["true"], bench.ssh("true", "/dev/null"))
        timed("true: fab -- true", bench.fab("-R", "bare", "-P", "--", "true"))
        timed("rollback: fab rollback", bench.fab("rollback"))
        timed(FLOORS["start"], [sys.executable, "-c", "import fabric"])
        timed("start: fab --list", bench.fab("--list"))
    return found


FLOORS = {
    "first": "first: ssh + tar, the floor",
    "one file changed": "one file changed: ssh + hard links, the floor",
    "true": "true: ssh, the floor",
    "rollback": "true: fab -- true",
    "start": "start: import fabric, the floor",
}


def table(count, found):
    """Medians, and each against the floor of its kind."""
    shown = Table("what", "median", "min", "max", "of the floor", title=f"{count} hosts", box=None)
    for name, seconds in found.items():
        floor = FLOORS.get(name.partition(":")[0])
        middle = statistics.median(seconds)
        ratio = f"{middle / statistics.median(found[floor]):.2f}" if floor else ""
        figures = (middle, min(seconds), max(seconds))
        shown.add_row(name, *(f"{figure:.2f} s" for figure in figures), ratio)
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="1,8,32", help="how many hosts, several with commas")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures = {}
    for count in map(int, options.hosts.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench") as folder, \
                Bench(Path(folder), count).up() as bench:
            figures[count] = rounds(bench, options.rounds)
            Console().print(table(count, figures[count]))
            print(f"switched within {', '.join(map(str, sorted(bench.skews)))} ms\n", flush=True)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/bench.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
