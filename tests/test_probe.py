"""The questions asked on a host, put to real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from fabfile import probe
from fabfile.processes import read_stat, wait_for
from tests.conftest import ROOT


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.server.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.answers = {"/healthz": (200, "{}"), "/r": (200, '{"release": "2", "pid": 7}')}
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(folder, expect="2", deadline=0.5, booting=False, **unit):
    request = {"folder": str(folder), "expect": expect, "deadline": deadline, "trial": booting,
               "units": [{"unit": "web", "processes": 1, **unit}]}
    done = subprocess.run(
        [sys.executable, "-", json.dumps(request)], text=True, capture_output=True,
        input=(ROOT / "fabfile/probe.py").read_text(), timeout=60)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_healthy_unit_that_runs_the_release(server, tmp_path):
    code, answer, _ = asked(tmp_path, health=f"{server.url}/healthz", release=f"{server.url}/r")
    assert code == 0
    assert [(one["release"], one["pid"]) for one in answer["processes"]] == [("2", 7)]


class Late(dict):
    """Answers of one master, and from the fifteenth on of another."""

    count = 0

    def __getitem__(self, path):
        self.count += 1
        return 200, json.dumps({"release": "2", "pid": self.count, "master": self.count // 15})


def test_it_is_asked_until_every_master_has_answered(server):
    server.answers = Late()
    found = probe.heard({"release": f"{server.url}/r", "processes": 2})
    assert {process["master"] for process in found} == {0, 1}
    server.answers = Late()
    assert len(probe.heard({"release": f"{server.url}/r", "processes": 1})) == 6


def test_another_release_is_a_failure_that_names_the_process(server, tmp_path):
    code, _, words = asked(tmp_path, expect="3", release=f"{server.url}/r")
    assert code == 1 and "web: pid 7 runs 2, not 3" in words


def test_nothing_is_expected_of_a_process_that_is_only_asked(server, tmp_path):
    assert asked(tmp_path, expect=None, release=f"{server.url}/r")[0] == 0


@pytest.mark.parametrize("status", [500, 503, 404])
def test_an_unhealthy_unit(server, tmp_path, status):
    server.answers["/healthz"] = (status, "database: no route")
    code, answer, words = asked(tmp_path, health=f"{server.url}/healthz")
    assert code == 1 and not answer["ok"]
    assert f"{status} database: no route" in words


def test_nobody_listens(tmp_path):
    code, _, words = asked(tmp_path, health="http://127.0.0.1:9/healthz")
    assert code == 1 and "refused" in words


def test_a_command_is_asked(tmp_path):
    said = """echo 'worker: {"a": {"release": "2", "pid": 9}}'"""
    found = asked(tmp_path, ask=said)[1]["processes"]
    assert [(one["release"], one["pid"]) for one in found] == [("2", 9)]


def test_a_command_that_fails_gives_its_last_words(tmp_path):
    code, _, words = asked(tmp_path, ask="echo no worker answered; exit 69")
    assert code == 1 and "exit status 69" in words and "no worker answered" in words


def test_a_trial_without_a_socket_only_has_to_end_well(tmp_path):
    assert asked(tmp_path, booting=True, trial="true")[0] == 0


SERVER = '''
import json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler
class Handler(BaseHTTPRequestHandler):
    def address_string(self): return ""
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"release": "2", "pid": os.getpid()}).encode())
socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
'''


def test_a_trial_is_booted_asked_over_its_socket_and_ended(tmp_path):
    (tmp_path / "serve.py").write_text(SERVER)
    code, answer, words = asked(
        tmp_path, booting=True, deadline=10, health="http://site/healthz", release="http://site/r",
        trial=f"{sys.executable} serve.py {{socket}}")
    assert code == 0, words
    pid = answer["processes"][0]["pid"]
    assert wait_for(lambda: not read_stat(pid), 30)  # a zombie has ended


def test_a_trial_in_a_temporary_folder_with_a_space(tmp_path, monkeypatch):
    (tmp_path / "serve.py").write_text(SERVER)
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "a b"))
    code, _, words = asked(tmp_path, booting=True, deadline=10, health="http://site/healthz",
                           trial=f"{sys.executable} serve.py {{socket}}")
    assert code == 0, words


def test_a_trial_ends_with_the_probe(tmp_path):
    trial = "echo $$ > pid; sleep 1; kill -TERM $PPID; exec sleep 60; : {socket}"
    request = {"folder": str(tmp_path), "expect": "2", "deadline": 60, "trial": True,
               "units": [{"unit": "web", "processes": 1, "trial": trial,
                          "health": "http://site/healthz"}]}
    probe = [sys.executable, ROOT / "fabfile/probe.py", json.dumps(request)]
    assert subprocess.run(probe, timeout=20).returncode == 143
    assert not read_stat(int((tmp_path / "pid").read_text()))


INTERRUPTED = """
import os, signal, subprocess, sys
sys.path.insert(0, "fabfile")
import probe
class Interrupted(subprocess.Popen):
    def __init__(self, *words, **settings):
        super().__init__(*words, **settings)
        print(self.pid, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen = Interrupted
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
probe.run("sleep 60", sys.argv[1], timeout=60)
"""


def test_a_trial_ends_with_a_probe_that_is_told_to_while_it_begins(tmp_path):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, tmp_path], cwd=ROOT, timeout=60,
                          stdout=subprocess.PIPE)
    assert done.returncode == 143
    assert not read_stat(int(done.stdout))


def test_a_probe_hears_a_sigterm_after_a_trial_that_could_not_begin(tmp_path):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(ValueError):
        probe.run("a\0b", tmp_path, timeout=60)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_trial_that_dies_gives_its_log(tmp_path):
    code, _, words = asked(
        tmp_path, booting=True, deadline=10, health="http://site/healthz",
        trial="echo the reason; exit 3; : {socket}")
    assert code == 1 and "the reason" in words


def test_what_is_in_an_answer():
    assert probe.processes_in([
        {"w": {"release": 1, "pid": 2}}, {"release": "x"}, {"release": "y", "pid": 4, "master": 3},
    ]) == [
        {"pid": 2, "master": 2, "release": "1"}, {"pid": None, "master": None, "release": "x"},
        {"pid": 4, "master": 3, "release": "y"},
    ]


# What is compared with what they say


@pytest.fixture
def current(tmp_path):
    """The `current` of a folder with three releases, of which the second and third are alike."""
    for date, text in {"20260101000000": "a1", "20260102000000": "b2",
                       "20260103000000": "b2"}.items():
        (tmp_path / f"releases/{date}/conf.d").mkdir(parents=True)
        (tmp_path / f"releases/{date}/conf.d/site.conf").write_text(f"return '{text}';")
    (tmp_path / "current").symlink_to("releases/20260102000000")
    return tmp_path / "current"


def test_what_current_is_and_since_when(current):
    os.utime(current, (5, 1.25), follow_symlinks=False)
    for path in (current.parent, *current.parent.rglob("*")):  # the link's own time, no other
        if not path.is_symlink():
            os.utime(path, (9, 9))
    assert probe.standing(str(current)) == {
        "folder": str(current.parent), "current": "20260102000000", "switched": 1.25,
        "deployed": True}


def test_what_was_deployed_and_is_gone_is_not_what_never_was(current):
    none = {"folder": str(current.parent), "current": None, "switched": None}
    current.unlink()
    assert probe.standing(str(current)) == {**none, "deployed": False}
    (current.parent / "state").mkdir()
    (current.parent / "state/line").touch()
    assert probe.standing(str(current)) == {**none, "deployed": True}
    current.symlink_to("releases/20260109000000")  # leads nowhere
    assert probe.standing(str(current)) == {**none, "deployed": True}


@pytest.mark.parametrize(("said", "release"), [
    ("a1", "20260101000000"), ("b2", "20260102000000"), ("c3", "c3")])
def test_a_fingerprint_is_that_of_current_or_else_of_the_newest_release_with_it(
        current, said, release):
    assert probe.holding(said, str(current)) == release
    current.unlink()
    current.symlink_to("releases/20260101000000")
    assert probe.holding("b2", str(current)) == "20260103000000"


def test_a_process_that_begins_is_never_older_than_the_moment_before(tmp_path):
    (tmp_path / "before").symlink_to("x")
    process = subprocess.Popen(["sleep", "60"])
    try:
        since = probe.began(process.pid)
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "before").lstat().st_mtime <= since <= time.time() + 0.02
    assert probe.began(process.pid) is None and probe.began(None) is None


def test_a_worker_is_as_old_as_its_master():
    process = {"pid": None, "master": os.getpid(), "release": "2"}
    assert probe.seen(process, {}, "")["since"] == pytest.approx(
        probe.began(os.getpid()), abs=0.1)


def test_nobody_is_waited_for_where_nothing_was_ever_deployed(tmp_path):
    started = time.monotonic()
    _, answer, _ = asked(tmp_path / "current", expect=None, deadline=20,
                         health="http://127.0.0.1:9/healthz")
    assert not answer["ok"] and not answer["deployed"]
    assert time.monotonic() < started + 5
