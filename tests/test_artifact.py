"""Artifacts of real git repositories: the same bytes for the same input, and what is refused."""

import gzip
import os
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from fabfile import artifact
from fabfile.errors import Failed, NotInstalled, Refused, Usage

NOON = "2026-11-24T12:00:00+0000"
HI = sha256(b"hi\n").hexdigest()
SH = sha256(b"#!/bin/sh\n").hexdigest()


class Repository:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words):
        facts = {"NAME": "Ann", "EMAIL": "ann@example.org", "DATE": NOON}
        identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                    for what, value in facts.items()}
        done = subprocess.run(["git", *words], cwd=self.folder, env={**os.environ, **identity},
                              check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, name, content, mode=0o644):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    """A site with a file, a script and a link in `site`, and something else beside it."""
    made = Repository(tmp_path / "a repo")
    made.write("readme", "not deployed\n")
    made.write("site/a file", "hi\n")
    made.write("site/bin/run", "#!/bin/sh\n", 0o755)
    (made.folder / "site/bin/link").symlink_to("../a file")
    made.commit()
    return made


@pytest.fixture
def build(repository, tmp_path):
    def build(revision="main", cache="cache", **more):
        more = {"repository": repository.folder, "subfolder": "site", **more}
        return artifact.build(revision=revision, cache=tmp_path / cache, **more)

    return build


def members(made):
    with tarfile.open(made.path) as archive:
        return {member.name: member for member in archive}


def manifest(made):
    with tarfile.open(made.path) as archive:
        return archive.extractfile(".manifest").read().decode()


def test_an_artifact_is_a_manifest_and_what_it_lists(build, repository):
    made = build()
    assert manifest(made) == (
        f"f644 {HI}  a file\nd755 -  bin\nl777 -  bin/link\t../a file\nf755 {SH}  bin/run\n"
    )
    assert list(members(made)) == [".manifest", "a file", "bin", "bin/link", "bin/run"]
    assert made.manifest_sha256 == sha256(manifest(made).encode()).hexdigest()
    assert made.sha256 == sha256(made.path.read_bytes()).hexdigest()
    assert made.path.name == f"{made.sha256}.tar"
    assert (made.files, made.bytes) == (3, 3 + 10)
    assert made.revision == repository.git("rev-parse", "HEAD")


def test_same_input_same_bytes(build, repository, monkeypatch):
    first = build()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    umask = os.umask(0o077)
    second = build(cache="another")
    os.umask(umask)
    assert second.path != first.path
    assert second.path.read_bytes() == first.path.read_bytes()
    member = members(first)["a file"]
    assert (member.uid, member.gid, member.uname, member.mtime) == (0, 0, "", 1795521600)
    assert gzip.decompress(first.packed().read_bytes()) == first.path.read_bytes()
    assert first.packed().read_bytes() == second.packed().read_bytes()


def test_built_once(build, tmp_path):
    log = tmp_path / "log"
    commands = [f"echo built >>{log}"]
    first, second = build(build=commands), build(build=commands)
    assert second == first
    assert log.read_text() == "built\n"
    build(build=[*commands, "true"])
    assert log.read_text() == "built\nbuilt\n"


def test_a_damaged_artifact_is_made_again(build):
    first = build()
    first.path.write_bytes(first.path.read_bytes()[:-1])
    assert build() == first
    assert sha256(first.path.read_bytes()).hexdigest() == first.sha256


def test_any_part_of_the_input_makes_another_artifact(build, repository):
    made = [build(), build(subfolder=""), build(carry={"a": b"1"}), build(carry={"a": b"2"}),
            build(build=["touch new"])]
    repository.write("site/a file", "ho\n")
    repository.commit()
    made.append(build())
    assert len({one.sha256 for one in made}) == len({one.path for one in made}) == len(made)


def test_build_commands_run_in_a_clean_export(build, repository, monkeypatch):
    repository.write("site/not committed", "")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/venv")
    made = build(build=["ls >listing", 'echo "$SOURCE_DATE_EPOCH ${VIRTUAL_ENV-none}" >env; cat'])
    with tarfile.open(made.path) as archive:
        assert archive.extractfile("listing").read() == b"a file\nbin\nlisting\n"
        assert archive.extractfile("env").read() == b"1795521600 none\n"


def test_a_build_finds_the_programs_that_are_beside_fab(build, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert build(build=["uv --version >version"])


def test_a_failing_build_shows_its_tail(build, tmp_path):
    with pytest.raises(Failed) as error:
        build(build=["seq 100; echo broken >&2; exit 7"])
    lines = str(error.value).splitlines()
    assert lines[0] == "build: `seq 100; echo broken >&2; exit 7` ended with 7"
    assert lines[1:] == [*map(str, range(82, 101)), "broken"]
    assert not list((tmp_path / "cache").glob("build-*")), "scratch folders are left"


def test_carried_files_are_added_to_the_root(build, repository, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (repository.folder / "site/servers.json").symlink_to(outside)
    repository.commit()
    made = build(carry={"servers.json": b"[]", "conf/x": b"1"})
    assert f"f644 {sha256(b'[]').hexdigest()}  servers.json\n" in manifest(made)
    assert "conf/x" in members(made)
    assert outside.read_text() == "untouched"


def test_carry_does_not_follow_a_folder_that_leaves(build, repository, tmp_path):
    (repository.folder / "site/conf").symlink_to(tmp_path)
    repository.commit()
    with pytest.raises(Refused, match=r"conf/x: leads out"):
        build(carry={"conf/x": b"1"})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("repository_of", [str, lambda path: path / "site"])
def test_a_repository_is_found_from_any_folder_in_it(build, repository, repository_of):
    assert build(repository=repository_of(repository.folder)) == build()


def test_a_url_is_mirrored_and_fetched_again(build, repository):
    url = f"file://{repository.folder}"
    first = build(repository=url)
    assert first.sha256 == build().sha256
    repository.write("site/a file", "ho\n")
    second = build(repository=url, revision=repository.commit())
    assert second.sha256 != first.sha256
    with pytest.raises(Failed, match="clone"):
        build(repository=f"file://{repository.folder}/nothing")


def test_a_url_is_shown_without_its_password():
    assert artifact._shown("https://ann:secret@example.org/x") == "https://example.org/x"


def test_dirty(repository):
    assert artifact.dirty(repository.folder) == ()
    repository.write("site/a file", "changed\n")
    repository.write("site/new\nfile", "")
    repository.write("readme", "changed\n")
    assert artifact.dirty(repository.folder, "site") == ("site/a file", "site/new\nfile")
    assert artifact.dirty(repository.folder / "site")[0] == "readme"
    assert artifact.dirty(f"file://{repository.folder}") == ()
    assert artifact.dirty(repository.folder / ".git") == ()


@pytest.mark.parametrize(
    ("revision", "hint"),
    [("mian", "there is main"), ("", "there is main"), ("--help", "there is main"),
     ("--output=x", "there is main"), ("HEAD:site", "there is main"), ("a b\nc", "there is main")],
)
def test_unknown_revision(build, repository, revision, hint):
    with pytest.raises(Usage) as error:
        build(revision=revision)
    assert str(error.value) == f"{repository.folder} has no revision {revision!r}; {hint}"


def test_a_repository_without_commits(build, tmp_path):
    empty = Repository(tmp_path / "empty")
    with pytest.raises(Usage, match="it has no commits yet"):
        build(repository=empty.folder)
    empty.commit()
    with pytest.raises(Refused, match="has no files"):
        build(repository=empty.folder, subfolder="")


def test_not_a_repository(build, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(Usage, match=f"{folder} is not a git repository"):
            build(repository=folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user(build, repository):
    for path in (repository.folder, repository.folder / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(Usage, match=r"belongs to another user.*--add safe\.directory"):
        build()


@pytest.mark.parametrize("subfolder", ["nothing", "readme", "--help"])
def test_no_such_subfolder(build, subfolder):
    with pytest.raises(Usage, match=f"has no folder {subfolder}"):
        build(subfolder=subfolder)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc"])
def test_paths_that_leave(build, path):
    with pytest.raises(Refused, match="leads out"):
        build(subfolder=path)
    with pytest.raises(Refused, match="leads out"):
        build(carry={path: b""})


@pytest.mark.parametrize(
    ("text", "reason"),
    [("/etc/passwd", "absolute path"), ("../../readme", "leaves"), ("../tree/a file", "leaves"),
     ("bin/../../site/a file", "leaves"), ("here/..", "leaves"), ("a\tb", "control character")],
)
def test_links_that_leave(build, repository, text, reason):
    (repository.folder / "site/here").symlink_to(".")
    (repository.folder / "site/link").symlink_to(text)
    repository.commit()
    with pytest.raises(Refused, match=reason):
        build()


@pytest.mark.parametrize("text", ["nothing", "link", "..x", "bin/../a file"])
def test_links_that_stay(build, repository, text):
    (repository.folder / "site/link").symlink_to(text)
    repository.commit()
    assert f"l777 -  link\t{text}\n" in manifest(build())


@pytest.mark.parametrize(
    ("name", "reason"),
    [(b"new\nline", "control character"), (b"back\\slash", "backslash"),
     (b"latin\xe9", "not UTF-8"),
     (b".venv", "keeps for itself"), (b".manifest", "keeps for itself")],
)
def test_names_that_cannot_travel(build, repository, name, reason):
    Path(os.fsdecode(os.fsencode(repository.folder) + b"/site/" + name)).write_text("x")
    repository.commit()
    with pytest.raises(Refused, match=reason):
        build()


def test_names_that_can(build, repository):
    names = ["-rf", " lead", "*star", "é", 'q"uote', "$(x)", "-", "..."]
    for name in names:
        repository.write(f"site/{name}", name)
    repository.commit()
    assert set(names) <= set(members(build()))


def test_a_submodule_is_named(build, repository, tmp_path):
    other = Repository(tmp_path / "other")
    other.commit()
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
                   str(other.folder), "site/lib/other")
    repository.commit()
    with pytest.raises(Refused, match="lib/other: a submodule"):
        build()


def test_a_pipe_is_refused(build):
    with pytest.raises(Refused, match="pipe: neither"):
        build(build=["mkfifo pipe"])


def test_missing_git_is_named(build, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotInstalled, match="git is not installed"):
        build()


def test_rendered_files(tmp_path):
    files = {"conf.d/site.conf": b"server {}\n", "nginx.conf": b""}
    made = artifact.from_files(files, cache=tmp_path)
    assert made == artifact.from_files(dict(reversed(files.items())), cache=tmp_path)
    assert [*members(made)][1:] == ["conf.d", "conf.d/site.conf", "nginx.conf"]
    assert (made.files, made.revision) == (2, "")
    with pytest.raises(Refused):
        artifact.from_files({"../x": b""}, cache=tmp_path)
    with pytest.raises(Refused, match="no files"):
        artifact.from_files({}, cache=tmp_path)
