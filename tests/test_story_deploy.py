"""The main job on a real fleet, in the order a team lives it: each test goes on from the last."""

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Visitors

HOME = "http://127.0.2.1:8080/"
MANAGE = "cd conference/current && .venv/bin/python manage.py"
pytestmark = pytest.mark.story


def get(path=""):
    with urllib.request.urlopen(HOME + path, timeout=10) as answer:
        return answer.read().decode()


def one_release(team):
    """The release that every host has, and that every process says it runs."""
    dates = set(team.current().values())
    assert len(dates) == 1
    rows = team.json("running")
    assert {row["runs"] for row in rows if row["unit"] != "nginx"} == dates
    assert {row["host"] for row in rows if row["unit"] == "nginx"} == {"lb1"}
    return dates.pop()


def test_a_new_fleet_is_refused_until_it_is_set_up(team):
    output = team.fab("deploy", code=6)
    assert "web1: not set up: run `fab setup`" in output


def test_a_missing_secret_is_named_before_anything_is_staged(team):
    team.fab("setup")
    output = team.fab("deploy", code=6)
    assert "web1: shared .env is missing" in output
    assert team.json("releases") == []


def test_the_first_deploy_serves_the_site(team):
    team.fab("put_shared", team.inventory.parent / ".sandbox/shared/.env")
    team.fab("setup")
    team.fab("deploy", "deploy_nginx")
    date = one_release(team)
    assert date in get()
    assert json.loads(get("healthz"))["status"] == "ok"


def test_a_process_that_was_not_restarted_is_a_difference_whatever_it_says(team):
    link = team.inventory.parent / ".sandbox/hosts/queue1/conference/current"
    switched = link.lstat().st_mtime
    os.utime(link, follow_symlinks=False)  # as if just switched, to what they run already
    output = team.fab("-H", "queue1", "running", code=1)
    os.utime(link, (switched, switched), follow_symlinks=False)
    assert re.search(r"^fab: queue1: celery \d+: older than the switch at 20", output, re.M)


def test_what_a_process_runs_is_not_shown_to_visitors(team):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("__release__")


def test_deploy_rollback_and_rollforward_without_a_failed_request(team, site):
    first = one_release(team)
    site.change("directory/templates/directory/home.html", "\n<p>changed</p>\n")
    with Visitors(HOME) as visitors:
        team.fab("deploy")
        second = one_release(team)
        assert "<p>changed</p>" in get()
        team.fab("rollback")
        assert one_release(team) == first
        assert "<p>changed</p>" not in get()
        team.fab("rollforward")
        assert one_release(team) == second
    assert visitors.failures == []
    assert visitors.count > 50


def test_rolling_batches(team):
    output = team.fab("--batch", "50%", "deploy")
    assert output.count("switched ") == 2
    one_release(team)


def test_there_is_nothing_to_roll_forward_to(team):
    before = one_release(team)
    output = team.fab("rollforward", code=6)
    assert f"all hosts have {before}; they have no next release" in output
    assert one_release(team) == before


def test_a_release_that_cannot_start_is_never_switched_to(team, site):
    before, good = one_release(team), site.git("rev-parse", "HEAD")
    site.change("conference/urls.py", "\nimport nowhere\n", "broken")
    with Visitors(HOME) as visitors:
        output = team.fab("deploy", code=1)
    site.back_to(good)
    assert "No module named 'nowhere'" in output
    assert visitors.failures == []
    assert one_release(team) == before


def test_a_release_that_fails_once_it_is_live_goes_back_everywhere(team, site, monkeypatch):
    before, good = one_release(team), site.git("rev-parse", "HEAD")
    monkeypatch.setitem(team.env, "FABRIC_PROVE_HEALTH", "15")
    site.change("conference/wsgi.py", """
import os
if os.path.realpath("../../current") == os.getcwd():
    raise SystemExit("fails only when live")
""", "fails when live")
    output = team.fab("deploy", code=7)
    site.back_to(good)
    assert "every host is back on the release it had" in output
    assert one_release(team) == before
    assert before in get()


WEARY = """
serve, begun = application, __import__("time").monotonic()


def application(environ, start_response):
    if environ["PATH_INFO"] != "/" or __import__("time").monotonic() < begun + 5:
        return serve(environ, start_response)
    start_response("500 Weary", [])
    return [b"weary"]
"""


def test_a_release_that_fails_visitors_after_a_while_goes_back(team, site, monkeypatch):
    before, good = one_release(team), site.git("rev-parse", "HEAD")
    site.change("conference/wsgi.py", WEARY)
    monkeypatch.setitem(team.env, "FABRIC_PROVE_WATCH", "20")
    with Visitors(HOME):
        output = team.fab("deploy", code=7)
    assert "requests since the switch failed on a server, 0 of " in output
    assert one_release(team) == before
    site.back_to(good)


def test_a_host_that_cannot_be_reached_is_named_and_nothing_is_touched(team):
    before, releases = one_release(team), team.json("releases")
    with stopped_sshd(team, "web2"):
        output = team.fab("deploy", code=5)
    assert "web2: " in output and "Connection refused" in output
    assert one_release(team) == before
    assert team.json("releases") == releases


class stopped_sshd:
    """A host whose sshd is gone for a while."""

    def __init__(self, team, name):
        self.team, self.name = team, name

    def __enter__(self):
        address = next(entry["private_dns"] for entry in json.loads(
            self.team.inventory.read_text()) if entry["name"] == self.name)
        os.kill(listener(address, 2222), signal.SIGTERM)

    def __exit__(self, *exc):
        self.team.fab("sandbox_up")


def listener(address, port):
    """The pid of the process that listens there."""
    number = socket.inet_aton(address)[::-1].hex().upper()
    sockets = [line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
               if line.split()[1] == f"{number}:{port:04X}" and line.split()[3] == "0A"]
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{sockets[0]}]":
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody listens on {address}:{port}")


def wait_for_step(process, word):
    """Reads a run's lines until one begins with `word`."""
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"the run ended before {word}")


def test_ctrl_c_leaves_the_old_release(team):
    before = one_release(team)
    run = team.start("deploy")
    wait_for_step(run, "lock")
    run.send_signal(signal.SIGINT)
    output = run.communicate(timeout=60)[0]
    assert run.returncode == 130, output
    assert one_release(team) == before
    team.fab("deploy")


def test_a_killed_run_is_gone_on_with_wherever_it_was(team):
    dates = set()
    for words, step in ((), "trial"), (("--resume",), "switched"):
        run = team.start("deploy", *words)
        wait_for_step(run, step)
        run.kill()
        run.communicate()
        dates |= {row["release"] for row in team.json("releases")}
    output = team.fab("deploy", "--resume")
    date = one_release(team)
    assert date == max(dates) and f"resume     deploy {date} of " in output
    assert "no host was left in a deploy" in team.fab("deploy", "--resume", code=6)


def test_the_audit_log_says_who_did_what(team):
    rows = team.json("audit", "--last", "200")
    assert {"stage", "publish", "commit", "revert"} <= {row["verb"] for row in rows}


def test_old_releases_go(team):
    rows = team.json("releases")
    assert len({row["release"] for row in rows if row["is"] in ("live", "current")}) <= 7


def test_one_memcached_is_down(team):
    pid = listener("127.0.2.6", 11211)
    os.kill(pid, signal.SIGSTOP)
    try:
        output = team.fab("-R", "memcached", "clear_cache", code=5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "cache1" in output.splitlines()[-1]
    team.fab("-H", "cache1,127.0.2.7", "clear_cache")


def test_a_celery_restart_under_load_loses_nothing_and_repeats_nothing(team):
    manage = "cd conference/current && .venv/bin/python manage.py"
    queue1 = ("-R", "celery", "-x", "queue2", "--")
    batch = team.fab(*queue1, f"{manage} queue_records 200 --seconds 0.5").split()[-1]
    team.fab("restart_celery")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        counted = team.fab(*queue1, f"{manage} count_records {batch}")
        if "200" in counted:
            break
        time.sleep(2)
    assert "done 200 distinct 200" in counted


SIGNED = ("seconds: float = 0) -> None", "seconds: float = 0, note: str = '') -> None")
SENT = ("record.delay(batch, number, seconds)", "record.delay(batch, number, seconds, note='new')")


def test_a_changed_task_loses_and_repeats_nothing_there_and_back(team, site):
    """Tasks of both releases are in the queue while workers of either come and go."""
    good = site.git("rev-parse", "HEAD")
    old = queued(team, 250)
    site.replace("directory/tasks.py", *SIGNED)
    site.replace("directory/management/commands/queue_records.py", *SENT)
    team.fab("deploy")
    new = queued(team, 250)
    team.fab("rollback")
    site.back_to(good)
    wait_until(lambda: counted(team, old) == "done 250 distinct 250")
    assert counted(team, new) != "done 250 distinct 250"
    team.fab("rollforward")
    wait_until(lambda: counted(team, new) == "done 250 distinct 250")
    assert counted(team, old) == "done 250 distinct 250"


def queued(team, count):
    """The name of a batch of new tasks."""
    command = f"{MANAGE} queue_records {count} --seconds 0.2"
    return team.fab("-H", "queue1", "--", command).split()[-1]


def counted(team, batch):
    words = team.fab("-H", "queue1", "--", f"{MANAGE} count_records {batch}").split()
    return " ".join(words[words.index("done"):])


def wait_until(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(3)
