"""The very first deploy fails: there is no release to go back to."""

import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.conftest import Site, Team, inventory_of

FLEET = (("web1", ["web"]), ("web2", ["web"]))
pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("first"))
    path = inventory_of(FLEET, "127.0.5", tmp_path_factory.mktemp("first-fleet") / "servers.json")
    team = Team(path, site)
    try:
        team.fab("sandbox_up")
        team.fab("setup")
        team.fab("put_shared", path.parent / ".sandbox/shared/.env")
        yield team, site
    finally:
        team.fab("sandbox_down")


def test_a_first_deploy_that_fails_when_live_leaves_nothing_running(fleet, monkeypatch):
    team, site = fleet
    monkeypatch.setitem(team.env, "FABRIC_PROVE_HEALTH", "15")
    good = site.git("rev-parse", "HEAD")
    site.change("conference/wsgi.py", """
import os
if os.path.realpath("../../current") == os.getcwd():
    raise SystemExit("fails only when live")
""")
    output = team.fab("deploy", code=7)
    site.back_to(good)
    assert "every host is back on the release it had" in output
    assert set(team.current().values()) == {"-"}
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://127.0.5.1:8000/", timeout=5)


def test_the_next_deploy_works_without_a_database_server_or_a_cache(fleet):
    team, _ = fleet
    team.fab("deploy")
    with urllib.request.urlopen("http://127.0.5.1:8000/healthz", timeout=5) as answer:
        assert answer.status == 200
    team.fab("running")


def test_a_second_deploy_sends_what_changed_and_repairs_what_was_changed_in_place(fleet):
    team, site = fleet
    home = team.inventory.parent / ".sandbox/hosts/web1/conference/current"
    (home / "manage.py").write_text("# somebody edited this on the server\n")
    site.change("directory/static/directory/site.css", "\n/* a change */\n")
    output = team.fab("deploy")
    assert "web1 | is sent the whole artifact: " in output
    assert "web2 | is sent" not in output
    assert "manage.py" in output
    assert "edited" not in (home / "manage.py").read_text()
    team.fab("running")


def test_where_one_host_cannot_switch_none_does(fleet):
    team, _ = fleet
    hosts = team.inventory.parent / ".sandbox/hosts"
    link = hosts / "web1/conference/current"
    before, in_the_way = link.lstat().st_mtime_ns, hosts / "web2/conference/state/pending"
    in_the_way.mkdir()
    output = team.fab("deploy", code=7)
    in_the_way.rmdir()
    assert "fab: web2: mv: " in output and "fab: web1: " not in output
    assert link.lstat().st_mtime_ns == before
    assert '"publish","outcome":"failed"' in (link.parent / "state/audit.log").read_text()
    team.fab("running")


def test_a_run_that_dies_after_its_switch_leaves_hosts_that_go_back_by_themselves(fleet):
    team, site = fleet
    before = set(team.current().values())
    team.env["FABRIC_DEPLOY_LEASE"] = "4"
    site.change("conference/wsgi.py", "\nimport time; time.sleep(3)\n")  # time to be killed in
    run = team.start("deploy")
    for said in run.stdout:
        if said.startswith("publish"):
            break
    run.kill()
    run.communicate()
    assert set(team.current().values()) != before
    deadline = time.monotonic() + 60
    while (asked := team.start("running")).wait(timeout=60) or set(
            team.current().values()) != before:
        assert time.monotonic() < deadline, f"not gone back by themselves\n{asked.stdout.read()}"
    assert {"expire"} <= {row["verb"] for row in team.json("audit")}
    del team.env["FABRIC_DEPLOY_LEASE"]


def test_a_run_that_was_frozen_wakes_up_fenced_off(fleet):
    team, _ = fleet
    team.env["FABRIC_DEPLOY_LEASE"] = "4"
    frozen = team.start("deploy")
    for said in frozen.stdout:
        if said.startswith("stage"):
            break
    frozen.send_signal(signal.SIGSTOP)
    time.sleep(5)
    team.fab("deploy")
    now = team.current()
    frozen.send_signal(signal.SIGCONT)
    output = frozen.communicate(timeout=60)[0]
    assert frozen.returncode == 9, output
    assert "does not hold the lock here" in output
    assert team.current() == now
    team.fab("running")
    del team.env["FABRIC_DEPLOY_LEASE"]
