"""Wheels for hosts that reach no package index: fetched here, by pip, for each Python that hosts
have, and sent to those that lack them. With `deploy.wheels: push`.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from .artifact import sha256_of
from .env import env
from .errors import Failed, NotInstalled, Refused
from .files import replacing

REMEDY = "build it (pip wheel), put it where pip looks (PIP_FIND_LINKS), its hash into the lock"


def push(releases, artifact):
    """Sends each host the wheels of the artifact's lock file that it lacks, if it is to build a
    virtualenv of it. Refused, naming it, where a requirement has no wheel.
    """
    hosts = [host for host in releases.fleet.hosts if env.units_of(host)]
    if env.deploy.wheels != "push" or not env.deploy.requirements or not hosts:
        return
    lock, cache = lock_file(artifact), artifact.path.with_name("wheels")
    cache.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="build-", dir=cache) as scratch:
        found = releases.call("wheels", stdin=pack(scratch, lock, {}), hosts=hosts)
        streams = lacking(found, lock, cache, scratch)
        if streams:
            size = sum(path.stat().st_size for path in streams.values())
            releases.fleet.say(f"wheels     {size / 1e6:.1f} MB for {len(streams)} hosts")
            releases.call("wheels", stdin=streams.get, hosts=streams)


def lock_file(artifact):
    """The bytes of the artifact's lock file. Failed if it has none."""
    with tarfile.open(artifact.path) as archive:
        try:
            return archive.extractfile(env.deploy.requirements).read()
        except KeyError:
            raise Failed(f"the artifact has no {env.deploy.requirements}") from None


def lacking(found, lock, cache, scratch):
    """host → Path of the wheels it lacks; packed once for all hosts that lack the same."""
    pythons = {host: reply.get("python") for host, reply in found.items() if reply.get("python")}
    sets = {python: fetched(lock, python, cache) for python in set(pythons.values())}
    lacks = {host: frozenset(sets[python]) - set(found[host].all("wheel"))
             for host, python in pythons.items()}
    paths = {digest: path for wheels in sets.values() for digest, path in wheels.items()}
    packed = {lack: pack(scratch, lock, {digest: paths[digest] for digest in lack})
              for lack in set(lacks.values()) if lack}
    return {host: packed[lack] for host, lack in lacks.items() if lack}


def pack(scratch, lock, wheels):
    """The Path of what release.sh takes: the lock file, and wheels (sha256 → Path)."""
    name = hashlib.sha256(" ".join(sorted(wheels)).encode()).hexdigest()
    path = Path(scratch) / f"{name[:16]}.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("lock")
        member.size = len(lock)
        archive.addfile(member, BytesIO(lock))
        for digest in sorted(wheels):
            archive.add(wheels[digest], arcname=wheels[digest].name)
    return path


def fetched(lock, python, cache):
    """sha256 → Path of the wheels that a lock file names for a Python; they stay in the cache."""
    note = cache / f"{hashlib.sha256(lock + python.encode()).hexdigest()}.json"
    if (known := noted(note)) is not None:
        return known
    with TemporaryDirectory(prefix="build-", dir=cache) as folder:
        download(requirements(lock.decode(), python), json.loads(python), Path(folder))
        names = {sha256_of(path): path.name for path in Path(folder).glob("*.whl")}
        for digest, name in names.items():
            (cache / digest).mkdir(exist_ok=True)
            os.replace(Path(folder) / name, cache / digest / name)
        with replacing(note) as new:
            new.write_text(json.dumps(names))
    return noted(note)


def noted(note):
    """The wheels fetched before for the same, or None if one is gone or damaged."""
    try:
        names = json.loads(note.read_text())
        wheels = {digest: note.parent / digest / name for digest, name in names.items()}
        return wheels if all(sha256_of(path) == digest for digest, path in wheels.items()) else None
    except (OSError, ValueError):
        return None


def requirements(lock, python):
    """The lines of a lock file that are for a Python, without the markers that say so: pip would
    hold them against the Python of this machine.
    """
    for line in re.sub(r"\\\r?\n", " ", lock).splitlines():
        line = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        if line.startswith("-"):
            yield line
        elif line:
            yield from without_marker(line, json.loads(python))


def without_marker(line, python):
    """One requirement, or nothing if it is not for this Python."""
    from packaging.requirements import InvalidRequirement, Requirement  # a while to load

    text, *hashes = line.split(" --hash=")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise Refused(f"{env.deploy.requirements}: {text!r} names no package") from None
    if requirement.marker is None or requirement.marker.evaluate(python):
        requirement.marker = None
        yield " --hash=".join([str(requirement), *hashes])


def download(lines, python, folder):
    """Fetches the wheel of each requirement into a folder. Refused where one cannot be had."""
    if not find_spec("pip"):
        raise NotInstalled("pip is not installed on this machine: python -m ensurepip")
    path = folder / "lines"
    path.write_text("".join(f"{line}\n" for line in lines))
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input",
             "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
             "--require-hashes", "--requirement", path, "--dest", folder, *fitting(python)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Refused(no_wheel(done.stderr, python))


def fitting(python):
    """pip's options for the wheels that fit a Python of which its host has told."""
    version = re.match(r"\d+\.\d+\.\d+", python["python_full_version"])[0]
    tags = [word for tag in platforms(python) for word in ("--platform", tag)]
    return ["--implementation", "cp", "--python-version", version, "--abi", python["abi"], *tags]


def platforms(python):
    """The platform tags of wheels that run with a Python, the best first: those for its C library
    and for each older one.
    """
    machine = re.sub(r"\W", "_", python["platform"].removeprefix("linux-"))
    newest = int(python["libc"].partition(".")[2] or 0)
    tags = [f"manylinux_2_{minor}" for minor in range(newest, 4, -1)]
    old = ["manylinux2014", "manylinux2010", "manylinux1"] if tags else []
    return [f"{tag}_{machine}" for tag in [*tags, *old, "linux"]]


def no_wheel(said, python):
    """What is missing, for which Python, the remedy, and what pip says of it first."""
    package = (re.findall(r"[^\s'(]+==[^\s,;)]+", said) or ["a requirement"])[-1]
    lines = [line.strip() for line in said.splitlines() if package.partition("==")[0] in line]
    word = re.sub(r"^[A-Z]+: ", "", (lines or [said.strip()])[0])[:200]
    return (f"{package}: no wheel for Python {python['python_full_version']} on "
            f"{python['platform']} could be had; {REMEDY}; pip says: {word}")
