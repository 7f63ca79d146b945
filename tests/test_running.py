"""What `fab running` makes of the answers: rows, verdicts and differences between hosts."""

import json
import os
import shlex
from types import SimpleNamespace

import pytest

from fabfile import probe_solr
from fabfile.env import Deploy, FleetSettings, Nginx, Solr, Unit, env
from fabfile.reply import moment
from fabfile.running import asked, different, judged, verdict
from inventory import Host

OLD, NEW = "20260101000000", "20260102000000"
PLACE = {"folder": "site", "current": NEW, "switched": 1000.5, "deployed": True}
NEVER = {"folder": "site", "current": None, "switched": None, "deployed": False}


def host(name, *roles):
    return Host(f"i-{name}", name, name, name, roles)


def answer(*processes, ok=True, reason="", unit="web", place=PLACE):
    return {"unit": unit, "ok": ok, "reason": reason, "processes": list(processes), **place}


def process(release=NEW, since=1000.6, pid=7):
    return {"pid": pid, "release": release, "since": since}


@pytest.mark.parametrize(("said", "seen", "words"), [
    (answer(), process(), "ok"),
    (answer(), process(since=1000.5), "ok"),
    (answer(), process(since=None), "ok"),
    (answer(), process(since=1000.49), f"older than the switch at {moment(1000)}"),
    (answer(), process(OLD), "NOT current"),
    (answer(), process(OLD, since=1), "NOT current"),
    (answer(), process(None, None), "NOT current"),
    (answer(ok=False, reason="refused\nits log"), process(None, None), "refused"),
    (answer(ok=False, reason="refused", place=NEVER), process(None, None), "-"),
    (answer(process(), place=NEVER), process(), "NOT current"),
    (answer(ok=False, reason="refused", place=NEVER | {"deployed": True}), process(None, None),
     "refused"),
])
def test_verdicts(said, seen, words):
    given = said | {"processes": said["processes"] or [seen] * said["ok"]}
    assert verdict(given, seen) == words


def test_a_row_for_each_process_and_one_where_nobody_answers():
    one = host("web1", "web")
    found = answer(process(), process(OLD, 999.0, pid=None))
    assert list(judged(one, found)) == [
        ("web1", "web", 7, NEW, NEW, moment(1000), "ok"),
        ("web1", "web", "-", OLD, NEW, moment(999), "NOT current")]
    assert list(judged(one, answer(ok=False, unit="nginx", place=NEVER))) == [
        ("web1", "nginx", "-", "-", "-", "-", "-")]
    assert list(judged(one, answer(unit=""))) == []


def test_hosts_that_have_different_releases_of_one_thing():
    lb1, web1, web2 = host("lb1"), host("web1"), host("web2")
    nginx = answer(place=PLACE | {"folder": "nginx", "current": OLD})
    heard = {lb1: [answer(unit=""), nginx], web1: [answer()], web2: [answer()]}
    assert list(different(heard)) == []
    heard[web2] = [answer(place=NEVER)]
    assert list(different(heard)) == [
        f"hosts have different releases in site: lb1 {NEW}, web1 {NEW}, web2 -"]


@pytest.fixture
def settings(monkeypatch):
    units = {"web": Unit(roles=("web",), release="http://{address}/r")}
    deploy = Deploy(application="site", deploy_to="site", roles=("web", "nginx"))
    for name, value in {"units": units, "deploy": deploy, "nginx": Nginx(), "solr": Solr(),
                        "fleet": FleetSettings()}.items():
        monkeypatch.setattr(env, name, value, raising=False)


def request(command):
    return json.loads(shlex.split(command)[-1])


@pytest.mark.parametrize(("roles", "units"), [
    (("web",), ["web"]), (("nginx",), ["", "nginx"]), (("web", "nginx"), ["web", "nginx"])])
def test_a_host_is_asked_about_what_runs_on_it(settings, roles, units):
    (command, program), = asked(host("one", *roles))
    found = request(command)
    assert [unit["unit"] for unit in found["units"]] == units
    assert found["folder"] == "site/current" and b"def standing" in program
    for unit in found["units"]:
        assert unit["unit"] != "nginx" or (unit["folder"], unit["release"]) == (
            "nginx/current", "http://one:8080/__nginx__")


def test_solr_is_asked_by_the_program_of_solr_status(settings):
    (command, program), = asked(host("solr1", "solr", "solr_slave"))
    assert request(command)["verb"] == "running" and b"def status_of" in program
    assert len(asked(host("all", "web", "solr", "solr_master"))) == 2
    assert asked(host("cache1", "memcached")) == []


# What a core runs


class Silent:
    """A Solr that must not be asked."""

    def __getattr__(self, name):
        raise AssertionError("Solr was asked")


@pytest.fixture
def solr(tmp_path):
    """A Solr host with two releases of a core, the older one current; its Solr loaded `heard`."""
    for date, text in ((OLD, "aa"), (NEW, "bb")):
        conf = tmp_path / "solr/releases" / date / "talks/conf"
        conf.mkdir(parents=True)
        (conf / "solrconfig.xml").write_text(f'<str name="fingerprint">{text}</str>')
    (tmp_path / "solr/current").symlink_to(f"releases/{OLD}")
    (tmp_path / "home/talks").mkdir(parents=True)
    (tmp_path / "home/talks/conf").symlink_to(tmp_path / "solr/current/talks/conf")

    def given(heard="", started="1970-01-01T00:00:01.500Z"):
        place = {"address": "", "port": 0, "home": tmp_path / "home",
                 "deploy_to": tmp_path / "solr"}
        found = probe_solr.Host(place)
        found.solr = SimpleNamespace(
            get=lambda path: {"responseHeader": {"params": {"fingerprint": heard}}},
            admin=lambda action: {"status": {"talks": {"startTime": started}}, "initFailures": {}})
        return found, place
    return given


@pytest.mark.parametrize(("heard", "release"), [("aa", OLD), ("bb", NEW), ("cc", "cc"), ("", "-")])
def test_the_release_that_a_core_runs(solr, heard, release):
    found, place = solr(heard)
    (said,) = probe_solr.running(found, place)
    assert (said["unit"], said["current"]) == ("core talks", OLD)
    assert said["processes"][0]["release"] == release


def test_a_core_has_its_configuration_since_it_was_loaded_or_swapped_in(solr):
    found, _ = solr()
    link = found.place("talks") / "conf"
    for linked, since in ((1, 1.5), (2, 2)):
        os.utime(link, (linked, linked), follow_symlinks=False)
        assert probe_solr.taken(found, "talks", "1970-01-01T00:00:01.500Z") == since
    assert probe_solr.taken(found, "talks", "1970-01-01T00:00:03Z") == 3


def test_a_core_that_is_not_loaded_is_none_that_runs(solr):
    found, place = solr()
    found.solr.admin = lambda action: {"status": {}, "initFailures": {"talks": "no such class"}}
    (said,) = probe_solr.running(found, place)
    assert (said["ok"], said["reason"], said["processes"]) == (False, "no such class", [])


def test_what_a_core_has_opened():
    empty = {"numDocs": 0, "sizeInBytes": 69, "segmentsFile": "segments_1", "userData": {}}
    assert probe_solr.opened(empty) == {
        "documents": 0, "bytes": 69, "version": 0, "generation": 1}
    committed = empty | {"segmentsFile": "segments_1a", "userData": {"commitTimeMSec": "1795500"}}
    assert probe_solr.opened(committed) == {
        "documents": 0, "bytes": 69, "version": 1795500, "generation": 46}


def test_a_commit_that_is_not_opened_yet_does_not_count(solr):
    found, _ = solr("aa")
    later = {"indexversion": 1800000, "generation": 9, "details": {}}  # fetched a moment ago
    found.solr.replicate = lambda core, command: later
    facts = {"numDocs": 0, "sizeInBytes": 69, "segmentsFile": "segments_2",
             "userData": {"commitTimeMSec": "1795500"}}
    said = probe_solr.status_of(found, "talks", {"talks": {"index": facts}}, {})
    assert (said["documents"], said["version"], said["generation"]) == (0, 1795500, 2)


def test_a_solr_that_got_nothing_from_here_is_not_asked(solr):
    found, place = solr()
    found.solr = Silent()
    found.current.unlink()
    (said,) = probe_solr.running(found, place)
    assert (said["unit"], said["deployed"], said["ok"]) == ("solr", False, False)
