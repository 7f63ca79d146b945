"""A host that has a release receives only what changed, and ends with exactly the artifact."""

import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabfile import delta
from tests.test_release_sh import Host

OLD, NEW = "20261124080000", "20261124090000"
SHARED = {"SHARED_FOLDERS": "media", "SHARED_FILES": ".env"}


@pytest.fixture
def host(tmp_path):
    return made(tmp_path)


def made(folder):
    (folder / "home").mkdir()
    host = Host(folder / "home")
    host.do("setup", **SHARED)
    (host.root / "shared/.env").write_text("SECRET=x")
    host.lock()
    return host


def manifest_of(made):
    with tarfile.open(made.path) as archive:
        return archive.extractfile(archive.next()).read().decode()


def ask(host, base, new, *, data=None, always=("media", ".env")):
    """Stages the files `new` over the release OLD that was made of `base`."""
    made = host.artifact(new)
    path = delta.build(made, manifest_of(host.artifact(base)), always=always)
    facts = {"DATE": NEW, "BASE": OLD, "MANIFEST_SHA256": made.manifest_sha256, **SHARED}
    return host.ask("stage", data=path.read_bytes() if data is None else data, **facts)


def staged(host, base, new):
    host.stage(OLD, base, **SHARED)
    answer = ask(host, base, new)
    assert answer.code == 0, answer.stderr
    assert same_as_whole(host, new)


def same_as_whole(host, files):
    """Whether the release is, path by path, what a whole artifact would have made."""
    host.stage("20261124100000", files, **SHARED)
    command = ["diff", "-r", "--no-dereference", NEW, "20261124100000"]
    return subprocess.run(command, cwd=host.root / "releases").returncode == 0


def test_what_did_not_change_is_the_same_file_on_disk(host):
    staged(host, {"a": b"1", "b/c": b"2"}, {"a": b"1", "b/c": b"3"})
    releases = host.root / "releases"
    assert (releases / OLD / "a").stat().st_ino == (releases / NEW / "a").stat().st_ino
    assert (releases / OLD / "b/c").read_bytes() == b"2"
    assert (releases / NEW / "b/c").read_bytes() == b"3"


def test_only_what_changed_travels(host):
    files = {f"f{number}": bytes([number]) * 1000 for number in range(100)}
    made = host.artifact(files | {"f7": b"new"})
    path = delta.build(made, manifest_of(host.artifact(files)))
    with tarfile.open(path) as archive:
        assert archive.getnames() == [".manifest", "f7"]


@pytest.mark.parametrize(("base", "new"), [
    ({"a": b"1", "b": b"2"}, {"a": b"1"}),
    ({"a": b"1", "d/x": b"2"}, {"a": b"1", "d": b"file"}),
    ({"a": b"1", "d": b"file"}, {"a": b"1", "d/x/y": b"2"}),
    ({"a": b"1", "media/k": b"k"}, {"a": b"2", "media/k": b"k"}),
    ({"a": b"1"}, {"a": b"2", ".env": b"from the artifact"}),
    ({"a b": b"1", "c'$(id)": b"2"}, {"a b": b"1", "c'$(id)": b"3", "ü": b"4"}),
    ({"a": b"1"}, {"a": b"1"}),
])
def test_paths_that_come_go_and_change_their_kind(host, base, new):
    staged(host, base, new)
    assert (host.root / "shared/.env").read_text() == "SECRET=x"


def test_what_the_running_release_left_there_is_not_taken_along(host):
    host.stage(OLD, {"a": b"1"}, **SHARED)
    (host.root / "releases" / OLD / "__pycache__").mkdir()
    (host.root / "releases" / OLD / "__pycache__/a.pyc").write_bytes(b"x")
    assert ask(host, {"a": b"1"}, {"a": b"1", "b": b"2"}).code == 0
    assert same_as_whole(host, {"a": b"1", "b": b"2"})


def test_a_shared_folder_is_never_written_through_its_link(host):
    base = {"a": b"1", "media/k": b"k"}
    host.stage(OLD, base, **SHARED)
    (host.root / "shared/media/k").write_bytes(b"a visitor's")
    assert ask(host, base, {"a": b"2", "media/k": b"K"}).code == 0
    assert (host.root / "shared/media/k").read_bytes() == b"a visitor's"


def refused(host, answer, words):
    """The operator learns that a delta failed, and nothing of it is left."""
    assert answer.code == 1 and answer.facts["base"] == OLD
    assert words in answer.stderr
    assert not (host.root / "releases" / NEW).exists()


def test_a_file_changed_in_place_on_the_host_is_found_out(host):
    base = {"a": b"1", "b": b"2"}
    host.stage(OLD, base, **SHARED)
    (host.root / "releases" / OLD / "a").write_bytes(b"X")
    refused(host, ask(host, base, {"a": b"1", "b": b"3"}), "damaged a")


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:20], lambda _: b""])
def test_a_stream_cut_short_is_found_out(host, damage):
    base, new = {"a": b"1"}, {"a": b"1", "b": b"2" * 5000}
    host.stage(OLD, base, **SHARED)
    path = delta.build(host.artifact(new), manifest_of(host.artifact(base)))
    refused(host, ask(host, base, new, data=damage(path.read_bytes())), "")


def test_a_base_that_is_gone(host):
    refused(host, ask(host, {"a": b"1"}, {"a": b"2"}), "cannot be copied")


def test_the_manifest_of_a_release_can_be_asked_for(host):
    host.deploy(OLD, {"a": b"1"})
    text = host.do("manifest", DATE=OLD).stdout
    made = host.artifact({"a": b"1"})
    assert text == manifest_of(made)
    assert delta.manifest(made, made.manifest_sha256, lambda: text) == text
    assert host.do("preflight").facts["manifest"] == made.manifest_sha256


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/f", "media/x", "sp ace"])
TREES = st.dictionaries(NAMES, st.sampled_from([b"", b"1", b"2"]), min_size=1)


@settings(max_examples=25, deadline=None)
@given(base=TREES, new=TREES)
def test_any_tree_over_any_other(base, new, tmp_path_factory):
    staged(made(tmp_path_factory.mktemp("any")), base, new)


def test_names_of_lines():
    lines = "f644 00  a b\nl777 -  l\ta b\nd755 -  d\n"
    assert delta.names(lines, {"d755 -  d"}) == {"a b", "l"}
