"""The Solr of the sandbox: its jars, which Maven resolves once and which are checked, and the
launcher that is compiled once. Both are kept in the user's cache."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from . import machine
from .env import ROOT, env
from .errors import Failed, Usage
from .machine import Server

SOURCE = ROOT / "sandbox/solr"
CACHE = Path.home() / ".cache/fab/solr"
PORT = machine.SERVERS["solr"].port
JDK = Server("javac", "default-jdk-headless", 0)
MAVEN = Server("mvn", "maven", 0)
OPTIONS = ("--batch-mode", "--file", SOURCE / "pom.xml")


@dataclass(frozen=True)
class Solr:
    """What the configuration of a host's Solr needs: the folder prepare() made, and which servers
    it may read from."""

    folder: Path
    addresses: tuple[str, ...]

    @property
    def classpath(self):
        return f"{self.folder}/classes:{self.folder}/jars/*"

    @property
    def logging(self):
        return SOURCE / "log4j2.xml"

    @staticmethod
    def heap(host):
        """The most that a host's Solr may take, as java's -Xmx has it. Usage if it is no size."""
        size = host.vars.get("solr_heap") or env.solr.heap
        if not re.fullmatch(r"[1-9]\d*[mg]", str(size)):
            raise Usage(f"solr_heap must be a size like 256m or 1g, not {size!r}")
        return size


def ready(hosts, say):
    """The Solr for `hosts`, made if need be; `say` hears of the progress.

    NotInstalled without Java, or where it has to be made without a JDK or Maven; Failed if a jar
    can't be had or is not the recorded one.
    """
    machine.check_there("Solr", [machine.SERVERS["solr"]])
    folder = CACHE / key()
    if not folder.exists():
        machine.check_there("Solr", [JDK, MAVEN])
        make(folder, say)
    return Solr(folder, tuple(f"{host.private_dns}:{PORT}" for host in hosts))


def key():
    """A name for what it is made of."""
    names = ("pom.xml", "jars.sha256", "Launcher.java")
    return sha256(b"\0".join((SOURCE / name).read_bytes() for name in names)).hexdigest()[:16]


def make(folder, say):
    """Resolves, checks and compiles beside `folder`, which it becomes by one rename."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=CACHE) as scratch:
        made = Path(scratch, "made")
        resolve(made / "jars", say)
        check(made / "jars", recorded())
        compile_launcher(made)
        if not folder.exists():  # nobody else was faster
            os.rename(made, folder)


def resolve(folder, say):
    """Has Maven copy the jars into a folder, and says how far it is."""
    say("solr       Maven resolves the jars, once")
    command = [machine.find_program("mvn"), *OPTIONS, "dependency:copy-dependencies",
               f"-DoutputDirectory={folder}"]
    count, lines = 0, []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            lines = [*lines[-50:], line]
            count += "Downloaded from" in line and ".jar" in line
            if "Downloaded from" in line and ".jar" in line and count % 25 == 0:
                say(f"solr       {count} jars are here")
    if process.returncode:
        errors = [line for line in lines if line.startswith("[ERROR]")] or lines
        raise Failed(f"Maven could not resolve Solr's jars:\n{''.join(errors[:4]).rstrip()}")


def recorded():
    """name → SHA-256 of each jar, as jars.sha256 has it."""
    lines = (SOURCE / "jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def check(folder, expected):
    """Failed unless the jars in a folder are those that were recorded, and no others."""
    found = {}
    for path in folder.glob("*.jar"):
        with open(path, "rb") as file:
            found[path.name] = file_digest(file, "sha256").hexdigest()
    wrong = sorted(dict(found.items() ^ expected.items()))
    if wrong:
        raise Failed(f"Solr's jars are not those of sandbox/solr/jars.sha256: {', '.join(wrong)}")


def compile_launcher(made):
    """Compiles the launcher against the jars, for any Java that Solr runs on."""
    machine.run_program("javac", "--release", "11", "-proc:none", "-cp", f"{made}/jars/*",
                        "-d", made / "classes", SOURCE / "Launcher.java")
