"""Solr for the sandbox as it is made ready: what is missing is named, what is wrong is refused."""

from types import SimpleNamespace

import pytest

from fabfile import launcher, machine
from fabfile.env import Solr as Settings
from fabfile.env import env
from fabfile.errors import Failed, NotInstalled, Usage


@pytest.fixture
def nothing_made(tmp_path, monkeypatch):
    """A user who never started a Solr."""
    monkeypatch.setattr(launcher, "CACHE", tmp_path)


def programs(monkeypatch, *there):
    """A machine with these programs and no others."""
    monkeypatch.setattr(machine, "find_program", lambda name: name in there and f"/bin/{name}")


def test_without_java_one_line_says_what_to_install(monkeypatch):
    programs(monkeypatch)
    with pytest.raises(NotInstalled) as stop:
        launcher.ready((), print)
    assert str(stop.value) == "Solr needs java: sudo apt-get install -y default-jdk-headless"


def test_a_jdk_and_maven_are_needed_the_first_time(monkeypatch, nothing_made):
    programs(monkeypatch, "java")
    with pytest.raises(NotInstalled) as stop:
        launcher.ready((), print)
    assert str(stop.value) == (
        "Solr needs javac, mvn: sudo apt-get install -y default-jdk-headless maven"
    )


def test_only_java_is_needed_once_it_is_made(monkeypatch, nothing_made):
    programs(monkeypatch, "java")
    (launcher.CACHE / launcher.key()).mkdir()
    solr = launcher.ready([SimpleNamespace(private_dns="127.0.81.2")], print)
    assert solr.addresses == ("127.0.81.2:8983",)


@pytest.mark.parametrize(("vars", "size"), [({}, "512m"), ({"solr_heap": "1g"}, "1g")])
def test_the_heap_is_the_hosts_or_that_of_all(vars, size, monkeypatch):
    monkeypatch.setattr(env, "solr", Settings(heap="512m"), raising=False)
    assert launcher.Solr.heap(SimpleNamespace(vars=vars)) == size


@pytest.mark.parametrize("size", ["plenty", "256", 256, "1g -Dx=y", "0m"])
def test_a_heap_that_is_no_size_is_refused(size):
    with pytest.raises(Usage, match="solr_heap must be a size like 256m or 1g, not "):
        launcher.Solr.heap(SimpleNamespace(vars={"solr_heap": size}))


def test_the_jars_are_those_that_were_recorded(tmp_path):
    (tmp_path / "a.jar").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    launcher.check(tmp_path, {"a.jar": empty})


@pytest.mark.parametrize(
    ("there", "recorded", "named"),
    [({"a.jar": b"x"}, {"a.jar": "0"}, "a.jar"), ({}, {"b.jar": "0"}, "b.jar"),
     ({"c.jar": b"x"}, {}, "c.jar")],
    ids=["changed", "missing", "one too many"],
)
def test_other_jars_are_refused_by_name(tmp_path, there, recorded, named):
    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Failed, match=rf"jars.sha256: {named}$"):
        launcher.check(tmp_path, recorded)


def test_a_failed_maven_says_why(tmp_path, monkeypatch):
    broken = tmp_path / "mvn"
    broken.write_text("#!/bin/sh\necho '[INFO] x'\necho '[ERROR] no such host'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(machine, "find_program", lambda name: broken)
    with pytest.raises(Failed) as stop:
        launcher.resolve(tmp_path / "jars", print)
    assert str(stop.value) == "Maven could not resolve Solr's jars:\n[ERROR] no such host"


def test_the_key_changes_with_what_it_is_made_of(tmp_path, monkeypatch):
    before = launcher.key()
    for path in launcher.SOURCE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(launcher, "SOURCE", tmp_path)
    assert launcher.key() == before
    (tmp_path / "Launcher.java").write_text("changed")
    assert launcher.key() != before
