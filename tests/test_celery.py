"""Celery workers on a small real fleet: those that hang, and those that do not come back."""

import base64
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import inventory
from fabfile import celery
from fabfile.env import FleetSettings, Nginx, Unit, env
from fabfile.errors import Failed, Usage
from fabfile.fleet import Outcome
from tests.conftest import BIN, Site, Team, inventory_of

FLEET = (("queue1", ["celery"]), ("queue2", ["celery", "beat", "monitor"]), ("redis1", ["redis"]))
NETWORK = "127.0.63"


# What answers mean


def host(name, *roles):
    return inventory.Host(f"i-{name}", name, name, name, roles)


def test_a_worker_that_answers_is_a_row():
    said = {"tasks": {"active": 2, "reserved": 0, "scheduled": 1}, "queues": {"celery": 5}}
    found = celery.state(Outcome(host("queue1"), stdout=json.dumps(said)))
    assert found == said
    says = {"processes": [{"release": "20261124083000", "pid": 17}]}
    assert celery.row(says, found["tasks"]) == ("20261124083000", 17, 2, 0, 1)


def test_a_worker_that_does_not_is_a_row_of_dashes():
    found = celery.state(Outcome(host("queue1"), stdout="", code=1))
    assert found == {"tasks": {}, "queues": {}}
    assert celery.row({"processes": []}, found["tasks"]) == ("-",) * 5


def test_the_pids_that_workers_say():
    said = [{"unit": "celery", "processes": [{"pid": 3, "release": "x"}]}]
    assert celery.pids({"queue1": said, "queue2": [{"processes": []}]}) == {
        "queue1": {3}, "queue2": set()}


def test_a_worker_that_came_back_is_another_process():
    one, two = host("queue1"), host("queue2")
    celery.came_back({one: {1}, two: set()}, {one: {9}, two: {2}})
    with pytest.raises(Failed, match=r"^an old process still answers on queue2$"):
        celery.came_back({one: {1}, two: {2}}, {one: {9}, two: {2}})


def test_hosts_without_workers_are_refused(monkeypatch):
    monkeypatch.setattr(env, "units", {"celery": Unit(roles=("celery",))}, raising=False)
    monkeypatch.setattr(env, "celery", SimpleNamespace(unit="celery"), raising=False)
    fleet = SimpleNamespace(hosts=[host("queue1", "celery"), host("web1", "web"), host("lb1")])
    with pytest.raises(Usage, match=r"^web1, lb1: no role of theirs runs the unit celery$"):
        celery.all_run(fleet, "celery")


def test_states_are_counted_in_order():
    assert celery.counted({"SUCCESS": 40, "RECEIVED": 2}) == "RECEIVED 2, SUCCESS 40"
    assert celery.counted({}) == "-"


@pytest.mark.parametrize(("roles", "place"), [
    (["nginx"], "http://lb1:8080/monitor/"), (["web"], "/monitor/")])
def test_the_page_that_plots_is_on_the_load_balancer(monkeypatch, roles, place):
    monkeypatch.setattr(env, "nginx", Nginx(), raising=False)
    monkeypatch.setattr(env, "fleet", FleetSettings(), raising=False)
    fleet = SimpleNamespace(inventory=SimpleNamespace(hosts=[host("lb1", *roles)]))
    assert celery.url(fleet, "/monitor/") == place


# Real workers

SETTINGS = """
services: {drain: 3}
"""


class CeleryTeam(Team):
    """A team whose workers have little time to end, and to come back."""

    def start(self, *words, **kwargs):
        return super().start("-f", self.inventory.parent / "celery.yml", *words, **kwargs)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    folder = tmp_path_factory.mktemp("celery")
    site = Site(tmp_path_factory.mktemp("site"))
    team = CeleryTeam(inventory_of(FLEET, NETWORK, folder / "servers.json"), site)
    (folder / "celery.yml").write_text(SETTINGS)
    try:
        team.fab("sandbox_up")
        team.fab("setup")
        team.fab("put_shared", folder / ".sandbox/shared/.env")
        team.fab("deploy")
        yield team
    finally:
        team.fab("sandbox_down")


def home(team, name):
    return team.inventory.parent / ".sandbox/hosts" / name


def pid_of(team, name, unit="celery"):
    """A unit's pid, from its supervisord."""
    command = [BIN / "supervisorctl", "-c", home(team, name) / "supervisord.conf", "pid", unit]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.story
def test_what_workers_do(team):
    output = team.fab("--json", "celery_status")
    tables = [json.loads(line)["rows"] for line in output.splitlines() if '"table"' in line]
    assert [(row["worker"], int(row["pid"]), row["active"]) for row in tables[0]] == [
        (f"celery@{name}", pid_of(team, name), "0") for name in ("queue1", "queue2")]
    assert tables[1:] == [[{"queue": "celery", "waiting": "0"}]]


class Beats:
    """How many beats there were at once, while something is done."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = set()

    def count(self):
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                celery = any(word.endswith(b"/celery") for word in words) and b"beat" in words
                found += celery and self.folder in (process / "cwd").resolve().parents
        return found

    def watch(self):
        while not self.stop.is_set():
            self.seen.add(self.count())
            time.sleep(0.02)

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()


BUSY = """import sys; sys.path.insert(0, "fabfile")
from probe_celery import heard
answers = iter([{}, {}, {"active": 1}, {}])
print(heard(lambda: next(answers)))"""


NEW = """import sys; sys.path.insert(0, "fabfile")
from types import SimpleNamespace
from probe_celery import release
answers, waited = [[], [], [{"one": {"pid": 7}}]], []
def broadcast(question, *, timeout, **_):
    waited.append(timeout)
    return answers.pop(0)
release(SimpleNamespace(control=SimpleNamespace(broadcast=broadcast)), "one")
print(sum(waited))"""


def on_a_worker(team, program):
    """What a program prints, run as the probes are."""
    current = home(team, "queue1") / "conference/current"
    return subprocess.run([current / ".venv/bin/python", "-c", program], cwd=current,
                          capture_output=True, text=True, check=True).stdout


@pytest.mark.story
def test_a_worker_that_is_busy_is_asked_again_before_it_counts_as_drained(team):
    assert on_a_worker(team, BUSY) == "{'active': 1}\n"


@pytest.mark.story
def test_a_worker_that_has_just_begun_is_asked_again_soon(team):
    assert on_a_worker(team, NEW) == '{"pid": 7}\n3\n'


@pytest.mark.story
def test_a_restart_takes_in_beat_and_its_like_and_there_are_never_two_beats(team):
    units = ("celery", "beat", "camera", "flower")
    before = [pid_of(team, "queue2", unit) for unit in units]
    with Beats(home(team, "queue2")) as beats:
        team.fab("restart_celery")
    assert all(old != pid_of(team, "queue2", unit) for old, unit in zip(before, units, strict=True))
    assert max(beats.seen) == 1 and beats.count() == 1


@pytest.mark.story
def test_what_the_camera_has_seen(team):
    for words in ("migrate -v0", "queue_records 3"):  # each host has a database of its own here
        manage = f"cd conference/current && .venv/bin/python manage.py {words}"
        team.fab("-H", "queue2", "--", manage)
    ends = time.monotonic() + 30
    while "record" not in (output := said(team.start("-H", "queue2", "celery_snapshot"))):
        assert time.monotonic() < ends, output
    assert re.search(r"^20\d\d-.* 0 .*SUCCESS \d.* celery@queue1, celery@queue2$", output, re.M)
    assert re.search(r"^[\d.]+ +directory.tasks.record +celery@queue\d", output, re.M)
    assert output.endswith("plotted    /monitor/\n")


def said(process):
    return process.communicate(timeout=60)[0]


@pytest.mark.story
def test_flower_asks_for_the_password_which_is_seen_nowhere(team):
    env = (team.inventory.parent / ".sandbox/shared/.env").read_text()
    password = re.search(r"^MONITOR_PASSWORD=(\S+)$", env, re.M)[1]
    request = urllib.request.Request(f"http://{NETWORK}.2:5555/flower/")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)
    login = base64.b64encode(f"monitor:{password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    logs = [path.read_text() for path in (home(team, "queue2") / "logs").iterdir()]
    assert not any(password in text for text in [*logs, *command_lines()])


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().decode(errors="replace")


@pytest.mark.story
def test_hosts_that_run_no_worker_are_refused(team):
    assert "redis1: no role" in team.fab("-H", "redis1", "celery_status", code=2)
    assert "redis1: no role" in team.fab("-H", "redis1", "restart_celery", code=2)


@contextmanager
def hanging(pid):
    """A worker and its children stand still."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stopped = [pid, *map(int, children)]
    for each in stopped:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in stopped:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)


@pytest.mark.story
def test_a_worker_that_hangs_is_named_and_its_restart_brings_another(team):
    pid = pid_of(team, "queue2")
    with hanging(pid):
        output = team.fab("celery_status", code=1)
        team.fab("-H", "queue2", "restart_celery")
    assert f"fab: no answer from celery@queue2 (RUNNING, pid {pid})" in output
    assert "celery@queue1  2" in output and "celery@queue2  - " in output
    assert pid_of(team, "queue2") != pid


@contextmanager
def broken(team, name, text):
    """A release whose Celery application can't be imported on one host."""
    path = home(team, name) / "conference/current/conference/celery.py"
    good = path.read_text()
    path.unlink()  # it may be linked to another release's
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(good)


@pytest.mark.story
def test_a_worker_that_does_not_come_back_is_named_with_its_last_words(team, monkeypatch):
    monkeypatch.setitem(team.env, "FABRIC_PROVE_HEALTH", "15")
    late = "import time\ntime.sleep(3)\nraise SystemExit('no table for this worker')\n"
    with broken(team, "queue1", late):
        output = team.fab("restart_celery", code=1)
    assert "queue1 | no table for this worker" in output
    assert "fab: queue1: " in output and "queue2: " not in output


@pytest.mark.story
def test_a_broker_that_is_down_is_said_on_one_line(team):
    team.fab("-H", "redis1", "--", "supervisorctl stop redis")
    output = team.fab("celery_status", code=1)
    assert "queue1: the broker does not answer: " in output
    assert "Traceback" not in output and "waiting" not in output
