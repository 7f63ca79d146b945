"""Hosts that another tool deployed to: its current becomes a release, as it is."""

import os

import pytest

from tests.test_release_sh import Host

OLD, NEW = "20240102030405", "20261124090000"


@pytest.fixture
def host(tmp_path):
    (tmp_path / "home").mkdir()
    host = Host(tmp_path / "home")
    host.root.mkdir()
    yield host


def site(folder, text="old"):
    folder.mkdir(parents=True)
    (folder / "index").write_text(text)
    return folder


def taken_over(host):
    host.do("setup")
    assert host.do("preflight").facts["foreign"] == str(host.root / "current")
    host.lock()
    return host.do("adopt").facts["adopted"].split(" ", 1)


def goes_back(host, old):
    """A deploy over it, and back again: what was adopted is served as before."""
    host.deploy(NEW)
    host.do("publish", DATE=old)
    host.do("commit", DATE=old)
    assert (host.root / "current/index").read_text() == "old"
    assert host.line == [old, NEW]


def test_capistranos_layout(host):
    release = site(host.root / "releases" / OLD)
    site(host.root / "releases/20230102030405", "older")
    (release / "REVISION").write_text("abc123\n")
    (host.root / "current").symlink_to(release)
    assert taken_over(host) == [OLD, str(release)]
    assert os.readlink(host.root / "current") == f"releases/{OLD}"
    listed = host.do("list").stdout
    assert f"release {OLD} current abc123" in listed
    goes_back(host, OLD)


def test_deployers_layout(host):
    release = site(host.root / "releases/7")
    os.utime(release, (1700000000, 1700000000))
    (host.root / "current").symlink_to("releases/7")
    date, path = taken_over(host)
    assert (date, path) == ("20231114221320", str(release))
    assert (release / "index").exists()
    goes_back(host, date)


def test_a_link_to_elsewhere(host, tmp_path):
    release = site(tmp_path / "srv/site")
    (host.root / "current").symlink_to(release)
    date, _ = taken_over(host)
    goes_back(host, date)
    assert (release / "index").read_text() == "old"


def test_a_plain_folder(host):
    site(host.root / "current")
    date, _ = taken_over(host)
    assert (host.root / "current").is_symlink()
    goes_back(host, date)


def test_a_link_that_leads_nowhere_is_refused(host):
    (host.root / "current").symlink_to("gone")
    host.do("setup")
    host.lock()
    answer = host.ask("adopt")
    assert answer.code == 6 and "leads nowhere" in answer.stderr


def test_there_is_nothing_to_adopt(host):
    host.do("setup")
    host.lock()
    assert host.do("adopt").facts["adopted"] == "-"
    host.deploy(NEW)
    assert host.do("adopt").facts["adopted"] == "-"
    assert host.line == [NEW]


def test_cleaning_leaves_an_adopted_folder_elsewhere_alone(host, tmp_path):
    release = site(tmp_path / "srv/site")
    (host.root / "current").symlink_to(release)
    taken_over(host)
    for minute in range(4):
        host.deploy(f"2026112410{minute:02}00")
    host.do("clean", KEEP=1)
    assert (release / "index").exists()
