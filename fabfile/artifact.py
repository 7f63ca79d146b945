"""A git revision, or a few rendered files, as an artifact: a reproducible .tar whose first member
is a manifest of everything in it. The only caller of git. docs/release.md has the format.
"""

import difflib
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath

from .errors import Failed, NotInstalled, Refused, Usage
from .files import replacing

RESERVED = {".manifest", ".venv"}  # what a release has of its own in its root
POINTERS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR",
            "GIT_OBJECT_DIRECTORY", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
PLAIN = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "log.showSignature=false")
LEVEL = 1  # of gzip: four times as quick as 6, and a tenth larger
RENDERED = 315532800  # 1980: files that were rendered have no time of their own


@dataclass(frozen=True)
class Artifact:
    """An artifact in the cache; `files` counts links too, `bytes` is what it unpacks to."""

    path: Path
    sha256: str
    manifest_sha256: str
    revision: str
    files: int
    bytes: int

    def packed(self):
        """The Path of its .tar.gz, for a host that has nothing of it; made when first asked for."""
        path = self.path.with_suffix(".tar.gz")
        if not path.exists():
            with replacing(path) as scratch, open(self.path, "rb") as tar, \
                    open(scratch, "wb") as file, \
                    gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
                shutil.copyfileobj(tar, packed)
        return path


def build(*, repository, revision, subfolder="", build=(), carry=None, cache):
    """The artifact of a revision: its sub-folder, `carry` ({path: bytes}) added, and what the
    `build` commands made of it in a clean folder. Of the same input it comes from the cache.

    `repository` is a path or a URL. Raises Usage for what is not there (repository, revision,
    sub-folder), Refused for what must not travel, Failed where a build command or a fetch fails.
    """
    carry = dict(carry or {})
    cache = Path(cache)
    at = _mirror(repository, cache) if _is_url(repository) else _git_folder(repository)
    commit = _commit(at, revision, _shown(repository))
    tree = _tree(at, commit, subfolder)
    key = _key(commit, tree, json.dumps(list(build)), *_flat(carry))
    if found := _cached(cache, key):
        return found
    moment = int(_git(at, "log", "--max-count=1", "--format=%ct", commit))
    with _scratch(cache) as scratch:
        folder = _export(at, tree, scratch)
        _add(folder, carry)
        _run(build, folder, moment)
        return _pack(folder, moment, commit, cache / key)


def from_files(files, *, cache):
    """The artifact of rendered files, {path: bytes}. Raises Refused for a path that leaves it."""
    cache = Path(cache)
    key = _key("files", *_flat(files))
    if found := _cached(cache, key):
        return found
    with _scratch(cache) as scratch:
        folder = scratch / "tree"
        _add(folder, files)
        return _pack(folder, RENDERED, "", cache / key)


def dirty(repository, subfolder=""):
    """The paths whose changes no revision has, so that they would not be deployed."""
    if _is_url(repository) or _git(repository, "rev-parse", "--is-inside-work-tree") != "true":
        return ()
    inside = ":(top,literal)" + _inner(subfolder)
    listed = _git(repository, "status", "--porcelain", "-z", "--no-renames", "--", inside)
    return tuple(entry[3:] for entry in listed.split("\0") if entry)


def make_repository(folder):
    """Makes a folder a git repository, all that is in it one commit."""
    settings = ("user.name=fab", "user.email=fab@localhost", "commit.gpgsign=false")
    options = [word for setting in settings for word in ("-c", setting)]
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, *options, "commit", "--quiet", "--message", "as it is")


# ---- git


def _git(at, *words):
    command = ["git", "--no-optional-locks", "-C", str(at), *PLAIN, *words]
    done = _process(command, env=_environment(LC_ALL="C", GIT_TERMINAL_PROMPT="0"))
    text = done.stdout.decode("utf-8", "surrogateescape")
    if done.returncode == 0:
        return text.removesuffix("\n")
    said = _shown(done.stderr.decode("utf-8", "replace").strip())
    if "dubious ownership" in said:
        raise Usage(f"{at} belongs to another user, so git does not read it; if you trust it: "
                    f"git config --global --add safe.directory {Path(at).resolve()}")
    if "not a git repository" in said or "cannot change to" in said:
        raise Usage(f"{at} is not a git repository")
    raise Failed(f"git {words[0]} in {at}: {said.splitlines()[-1] if said else 'failed'}")


def _process(command, **kwargs):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, **kwargs)
    except FileNotFoundError:
        raise NotInstalled(f"{command[0]} is not installed on this machine") from None


def _environment(**more):
    """This process's, but for what would point git or a build at some other place."""
    return {name: value for name, value in os.environ.items() if name not in POINTERS} | more


def _is_url(repository):
    return bool(re.match(r"[\w+.-]+://|[\w.-]+@[\w.-]+:", str(repository)))


def _shown(text):
    """Without the password of a URL."""
    return re.sub(r"//[^/@\s]*@", "//", str(text))


def _git_folder(repository):
    return Path(_git(repository, "rev-parse", "--absolute-git-dir"))


def _mirror(url, cache):
    """A bare copy of a repository elsewhere, brought up to date."""
    mirror = cache / f"{_key(url)[:16]}.git"
    if not mirror.exists():
        with _scratch(cache) as scratch:
            _git(scratch, "clone", "--quiet", "--mirror", "--", url, "copy.git")
            os.rename(scratch / "copy.git", mirror)
    else:
        _git(mirror, "fetch", "--quiet", "--prune", "origin")
    return mirror


def _commit(at, revision, shown):
    try:
        wanted = f"{revision}^{{commit}}"
        return _git(at, "rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
    except Failed:
        known = _git(at, "for-each-ref", "--format=%(refname:short)").split()
        near = difflib.get_close_matches(revision, known, n=3) or known[:3]
        hint = f"; there is {', '.join(near)}" if near else "; it has no commits yet"
        raise Usage(f"{shown} has no revision {revision!r}{hint}") from None


def _tree(at, commit, subfolder):
    """The hash of the folder to deploy, which must have something in it and no submodules."""
    inner = _inner(subfolder)
    try:
        tree = _git(at, "rev-parse", "--verify", "--quiet", f"{commit}:{inner}")
        listed = _git(at, "ls-tree", "-r", "-z", "--full-tree", tree).split("\0")
    except Failed:
        raise Usage(f"revision {commit[:10]} has no folder {inner}") from None
    modules = [entry.partition("\t")[2] for entry in listed if entry.startswith("160000 ")]
    if modules:
        raise Refused(f"{_few(modules)}: a submodule, which git does not export; "
                      "commit its files, or fetch them with a build command")
    if not any(listed):
        raise Refused(f"revision {commit[:10]} has no files{' in ' + inner if inner else ''}")
    return tree


# ---- the folder


@contextmanager
def _scratch(cache):
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as scratch:
        (Path(scratch) / "tree").mkdir()
        yield Path(scratch)


def _inner(path):
    """A path below the root, in its plain form. Refused if it leads out."""
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/"):
        raise Refused(f"{path}: leads out of the folder that is deployed")
    return "/".join(parts)


def _export(at, tree, scratch):
    archive, folder = scratch.resolve() / "tree.tar", scratch / "tree"
    _git(at, "archive", "--format=tar", f"--output={archive}", tree)
    done = _process(["tar", "-xf", str(archive), "-C", str(folder)])
    if done.returncode:
        raise Failed(f"the revision could not be unpacked: {done.stderr.decode(errors='replace')}")
    return folder


def _add(folder, files):
    for name, content in files.items():
        path = folder / _inner(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise Refused(f"{name}: leads out of the folder that is deployed")
        path.unlink(missing_ok=True)  # it may be a link to somewhere else
        path.write_bytes(content)


def _run(commands, folder, moment):
    beside_fab = Path(sys.executable).parent  # where bin/setup has put uv
    path = f"{os.environ.get('PATH', os.defpath)}:{beside_fab}"
    env = _environment(SOURCE_DATE_EPOCH=str(moment), TZ="UTC", LC_ALL="C.UTF-8", PATH=path)
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            tail = done.stdout.decode("utf-8", "replace").splitlines()[-20:]
            raise Failed("\n".join([f"build: `{command}` ended with {done.returncode}", *tail]))


def _paths(folder):
    """Every path below the folder, in the order of the manifest: a folder before what is in it."""
    found = []
    for at, folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(at, name), folder) for name in folders + files]
    return sorted(found, key=os.fsencode)


# ---- the archive


def _pack(folder, moment, revision, note):
    """Writes the archive, named by its content, and a note under the name of what went in."""
    members = [_member(folder, name) for name in _paths(folder)]
    files = [member for member in members if not member.isdir()]
    if not any(member.isreg() for member in files):
        raise Refused("there are no files to deploy")
    manifest = "".join(_line(folder, member) for member in members).encode()
    new = folder.with_name("new.tar")
    _write(new, folder, moment, manifest, members)
    digest, size = sha256_of(new), sum(member.size for member in files)
    path = note.with_name(f"{digest}.tar")
    os.replace(new, path)
    made = Artifact(path, digest, hashlib.sha256(manifest).hexdigest(), revision, len(files), size)
    _note(note.with_suffix(".json"), made)
    return made


def _member(folder, name):
    """What the archive says of one path. Refused for what no host should unpack."""
    member, path = tarfile.TarInfo(name), folder / name
    status = path.lstat()
    _check_name(name)
    if stat.S_ISREG(status.st_mode):
        member.mode = 0o755 if status.st_mode & 0o100 else 0o644
        member.size = status.st_size
    elif stat.S_ISDIR(status.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, _link(folder, path)
    else:
        raise Refused(f"{name}: neither a file, a folder nor a symbolic link")
    return member


def _check_name(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Refused(f"{os.fsencode(name)!r}: a name that is not UTF-8; rename it") from None
    if re.search(r"[\x00-\x1f\x7f\\]", name):
        raise Refused(f"{name!r}: a name with a backslash or a control character; rename it")
    if name in RESERVED:
        raise Refused(f"{name}: a name that a release keeps for itself; remove or rename it")


def _link(folder, path):
    """A link's text, which must stay inside whichever way it is followed."""
    text, root = os.readlink(path), os.path.realpath(folder)
    name = path.relative_to(folder)
    _check_name(text)
    if text.startswith("/"):
        raise Refused(f"{name}: a link to the absolute path {text}; make it relative")
    goes_to = PurePosixPath(os.path.normpath(name.parent / text))
    if ".." in goes_to.parts or not Path(os.path.realpath(path)).is_relative_to(root):
        raise Refused(f"{name}: a link to {text}, which leaves the folder that is deployed")
    return text


def _line(folder, member):
    """One line of the manifest: kind and mode, sha256 or `-`, path, and for a link its text."""
    if member.isdir():
        return f"d755 -  {member.name}\n"
    if member.issym():
        return f"l777 -  {member.name}\t{member.linkname}\n"
    return f"f{member.mode:o} {sha256_of(folder / member.name)}  {member.name}\n"


def _write(path, folder, moment, manifest, members):
    first = tarfile.TarInfo(".manifest")
    first.size = len(manifest)
    with open(path, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for member in [first, *members]:
                member.mtime = moment
                archive.addfile(member, _content(folder, member, manifest))
        file.flush()
        os.fsync(file.fileno())


def _content(folder, member, manifest):
    if member.name == ".manifest":
        return BytesIO(manifest)
    return BytesIO((folder / member.name).read_bytes()) if member.isreg() else None


# ---- the cache


def _key(*parts):
    """A name for what goes in: its parts, each with its length before it, hashed."""
    encoded = [p if isinstance(p, bytes) else p.encode("utf-8", "surrogateescape") for p in parts]
    return hashlib.sha256(b"".join(b"%d:%s" % (len(p), p) for p in encoded)).hexdigest()


def _flat(files):
    return [part for name in sorted(files) for part in (name, files[name])]


def _cached(cache, key):
    """The artifact made of the same before, unless it is gone or damaged."""
    try:
        found = Artifact(path=None, **json.loads((cache / f"{key}.json").read_text()))
        path = cache / f"{found.sha256}.tar"
        return replace(found, path=path) if sha256_of(path) == found.sha256 else None
    except (OSError, ValueError, TypeError):
        return None


def _note(path, made):
    facts = asdict(made)
    del facts["path"]
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(facts))


def sha256_of(path):
    """The hash of a file, as manifests and lock files write it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _few(names):
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
