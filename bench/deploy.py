"""How long a deploy takes on N hosts, against the floor of plain ssh and against other tools.

    bin/bench [--hosts 1,8,32] [--rounds 3] [--uplink 100]

Everything runs in one go on a sandbox of bare hosts, in turn, so that the ratios hold on a busy
machine too. A table of medians and ratios is printed; build/bench.json has every figure.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.network import in_a_network_of_its_own
from bench.rivals import DELTA, RIVALS, WHOLE, fetch_tools

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


def inventory(folder, addresses):
    """servers.json of bare hosts."""
    (folder / "servers.json").write_text(json.dumps([
        {"instance_id": f"i-{n:017x}", "public_dns": address, "private_dns": address,
         "name": f"bare{n}", "roles": ["bare"], "port": 2222}
        for n, address in enumerate(addresses, 1)
    ]))


class Bench:
    """A sandbox of `count` bare hosts, and a site of many files with one that changes."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count
        self.repository = folder / "site"
        self.tar = folder / "site.tar.gz"
        self.number = 0
        self.skews = []  # milliseconds between the first and the last host's switch
        self.env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        inventory(folder, self.addresses)
        self.write_site()
        (folder / "bench.yml").write_text(CONFIG.format(repository=self.repository))

    @property
    def addresses(self):
        return [f"127.0.101.{number}" for number in range(1, self.count + 1)]

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
        self.run(self.ssh("rm -rf ours theirs .fab *.tar.gz", "/dev/null"))
        self.run(self.fab("setup"))

    def run(self, command):
        """Seconds that a command took; it has to succeed. What others wrote is on the disk before:
        a command that syncs what it writes would wait for that too.
        """
        os.sync()
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


def rows(found):
    """Medians, and each against the floor of its kind."""
    for name, seconds in found.items():
        floor = FLOORS.get(name.partition(":")[0])
        middle = statistics.median(seconds)
        ratio = f"{middle / statistics.median(found[floor]):.2f}" if floor else ""
        yield (name, *(f"{each:.2f} s" for each in (middle, min(seconds), max(seconds))), ratio)


def goals(found, skews):
    """(what, at most, found): the goals of docs/benchmarks.md, of these medians."""
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    changed = "one file changed"
    ours, quickest = middle[f"{changed}: fab deploy"], min(
        middle[f"{changed}: {name}"] for name in RIVALS if f"{changed}: {name}" in middle)
    yield f"{changed}, of the quickest other tool", 0.25, ours / quickest
    yield f"{changed}, of its floor", 1.25, ours / middle[FLOORS[changed]]
    yield "first, of its floor", 1.1, middle["first: fab deploy"] / middle[FLOORS["first"]]
    yield ("rollback, of `true` everywhere", 1.3,
           middle["rollback: fab rollback"] / middle[FLOORS["rollback"]])
    yield "milliseconds of the switch", 100, statistics.median(skews)
    yield ("fab --list, of import fabric", 1.2,
           middle["start: fab --list"] / middle[FLOORS["start"]])


def judge(goals):
    """Prints what was wanted, what was found, and by how much a goal was missed."""
    shown("goals", ("what", "at most", "found", ""), (
        (what, f"{most:g}", f"{found:.3g}",
         "met" if found <= most else f"missed: {found / most:.2f} times that")
        for what, most, found in goals
    ))


def shown(title, columns, rows):
    """Prints a table."""
    table = Table(*columns, title=title, box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="1,8,32", help="how many hosts, several with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--uplink", type=int, help="Mbit/s between this machine and all hosts")
    options = parser.parse_args()
    if options.uplink:
        fetch_tools()  # from there nothing can be downloaded
        in_a_network_of_its_own(options.uplink)
    figures = {}
    for count in map(int, options.hosts.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench") as folder, \
                Bench(Path(folder), count).up() as bench:
            figures[count] = rounds(bench, options.rounds)
            shown(f"{count} hosts", ("what", "median", "min", "max", "of the floor"),
                  rows(figures[count]))
            print(f"switched within {', '.join(map(str, sorted(bench.skews)))} ms\n", flush=True)
            judge(goals(figures[count], bench.skews))
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/bench.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
