"""What a host that has another release lacks of an artifact: the members that its manifest does
not have, in one compressed stream, built once for each manifest that hosts have.
"""

import gzip
import hashlib
import tarfile
from pathlib import Path

from .errors import Failed
from .files import replacing


def build(artifact, base, *, always=()):
    """The Path of a .tar.gz with the new manifest and each member that the manifest `base` (text)
    lacks; links, and members at or below the paths `always`, are in it whatever the base has.

    It lies beside the artifact, so that another run finds it.
    """
    name = hashlib.sha256("\0".join([base, *always]).encode()).hexdigest()[:16]
    path = artifact.path.with_name(f"{artifact.sha256}-{name}.delta.tar.gz")
    if not path.exists():
        with replacing(path) as scratch:
            write(artifact.path, scratch, set(base.splitlines()), always)
    return path


def write(whole, path, known, always):
    """Copies from one archive to another what is not known."""
    with tarfile.open(whole, "r:") as source, gzip.open(path, "wb", compresslevel=6) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        manifest = source.extractfile(".manifest").read().decode()
        wanted = names(manifest, known) | {".manifest"}
        for member in source:
            if member.name in wanted or is_below(member.name, always):
                content = source.extractfile(member) if member.isreg() else None
                archive.addfile(member, content)


def names(manifest, known):
    """The paths of the manifest's lines that are not known, and of its links, which no copy of a
    release on a host takes along. docs/release.md has the format.
    """
    lines = [line for line in manifest.splitlines() if line not in known or line[0] == "l"]
    return {line.partition("  ")[2].partition("\t")[0] for line in lines}


def is_below(name, folders):
    """Whether a path is one of the folders, or in one of them."""
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


def manifest(artifact, sha256, fetch):
    """The text of the manifest with this hash: from beside the artifact, else by `fetch()`.

    Failed if what was fetched is another one.
    """
    path = Path(artifact.path).with_name(f"{sha256}.manifest")
    if not path.exists():
        text = fetch()
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise Failed("the manifest that a host has is not the one it recorded")
        with replacing(path) as scratch:
            scratch.write_text(text)
    return path.read_text()
