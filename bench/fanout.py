"""How long `true` takes on hundreds of hosts, and how much memory: ours, asyncssh, OpenSSH's ssh.

    bin/bench fanout [--hosts 250,1000] [--rounds 3]

One sshd stands for all of them, at as many addresses, in a network of its own: it takes root.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from bench.deploy import BIN, ROOT, inventory, judge, shown
from bench.network import in_a_network_of_its_own, inside

WITH_ASYNCSSH = ["uv", "run", "--no-project", "--quiet", "--with", "asyncssh"]
ASYNCSSH = """
import asyncio, asyncssh, sys
key, hosts, known = sys.argv[1], sys.argv[3:], sys.argv[2]
async def one(host, free):
    async with free, asyncssh.connect(host, 2222, client_keys=[key], known_hosts=known) as link:
        await link.run("true", check=True)
async def main():
    free = asyncio.Semaphore(32)
    await asyncio.gather(*(one(host, free) for host in hosts))
asyncio.run(main())
"""


class Fanout:
    """`count` addresses of one sshd, and what reaches all of them: 32 at a time."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count
        self.addresses = [f"127.7.{n // 250}.{n % 250 + 1}" for n in range(count)]
        self.ssh_config = folder / "ssh_config"
        inventory(folder, self.addresses)
        (folder / "bench.yml").write_text("fleet:\n  ssh_config: [ssh_config]\n")
        (folder / "asynchronous.py").write_text(ASYNCSSH)

    def write_keys(self):
        """The host's key and the login's; the hosts are known."""
        for name in ("host", "login"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                            self.folder / name], check=True)
        key = (self.folder / "host.pub").read_text()
        known = "".join(f"[{address}]:2222 {key}" for address in self.addresses)
        (self.folder / "known_hosts").write_text(known)
        self.ssh_config.write_text(f"""
Host *
  Port 2222
  IdentityFile {self.folder}/login
  UserKnownHostsFile {self.folder}/known_hosts
""")

    @contextmanager
    def sshd(self):
        self.write_keys()
        words = {"Port": 2222, "HostKey": self.folder / "host", "PidFile": "none", "UsePAM": "no",
                 "AuthorizedKeysFile": self.folder / "login.pub", "StrictModes": "no",
                 "MaxStartups": 2000, "UseDNS": "no",
                 "SetEnv": f"HOME={self.folder}"}  # so that no shell reads files of ours
        options = [word for name, value in words.items() for word in ("-o", f"{name}={value}")]
        program = shutil.which("sshd", path="/usr/sbin:/sbin")
        with subprocess.Popen([program, "-D", "-f", "/dev/null", *options]) as running:
            try:
                time.sleep(1)
                yield self
            finally:
                running.terminate()

    def fab(self):
        return [BIN / "fab", "-I", self.folder / "servers.json", "-f", self.folder / "bench.yml",
                "-R", "bare", "-P", "--", "true"]

    def asyncssh(self):
        return [*WITH_ASYNCSSH, "--offline", "python", self.folder / "asynchronous.py",
                self.folder / "login", self.folder / "known_hosts", *self.addresses]

    def xargs(self):
        return ["sh", "-c", 'printf "%s\\n" "$@" | xargs -P 32 -I @ ssh -F "$0" @ true',
                self.ssh_config, *self.addresses]


def measured(command):
    """(seconds, peak memory in MB) of a command, which has to succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} ended with {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def rounds(fanout, count):
    """name → [(seconds, MB)] of each round, everybody in turn."""
    ways = {"fab -- true": fanout.fab, "asyncssh": fanout.asyncssh, "xargs ssh": fanout.xargs}
    found = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            found[name].append(measured(way()))
    return found


def rows(found):
    """name, median seconds, of fab's, peak memory."""
    seconds = {name: statistics.median(each for each, _ in rows) for name, rows in found.items()}
    for name, measures in found.items():
        ratio = seconds[name] / seconds["fab -- true"]
        yield (name, f"{seconds[name]:.2f} s", f"{ratio:.2f}",
               f"{max(memory for _, memory in measures):.0f} MB")


def goals(found):
    """(what, at most, found): the goals of docs/benchmarks.md, of these medians."""
    ours, asyncssh, xargs = (statistics.median(each for each, _ in rows) for rows in found.values())
    yield "fab, of asyncssh", 1.15, ours / asyncssh
    yield "fab, of ssh by xargs", 0.333, ours / xargs
    yield "MB of memory", 150, max(memory for _, memory in found["fab -- true"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="250,1000", help="how many hosts, several with commas")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not inside():  # from where nothing can be downloaded
        subprocess.run([*WITH_ASYNCSSH, "true"], check=True)
    in_a_network_of_its_own()
    for count in map(int, options.hosts.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench") as folder, \
                Fanout(Path(folder), count).sshd() as fanout:
            found = rounds(fanout, options.rounds)
            shown(f"true on {count} hosts", ("what", "median", "of fab", "memory"), rows(found))
            judge(goals(found))


if __name__ == "__main__":
    sys.exit(main())
