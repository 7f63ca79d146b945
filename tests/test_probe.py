"""The questions asked on a host, put to real processes."""

import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fabfile import probe
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
    assert answer["processes"] == [{"release": "2", "pid": 7}]


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
    assert asked(tmp_path, ask=said)[1]["processes"] == [{"release": "2", "pid": 9}]


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
    assert not Path(f"/proc/{pid}").exists()


def test_a_trial_in_a_temporary_folder_with_a_space(tmp_path, monkeypatch):
    (tmp_path / "serve.py").write_text(SERVER)
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "a b"))
    code, _, words = asked(tmp_path, booting=True, deadline=10, health="http://site/healthz",
                           trial=f"{sys.executable} serve.py {{socket}}")
    assert code == 0, words


def test_a_trial_ends_with_the_probe(tmp_path):
    request = {"folder": str(tmp_path), "expect": "2", "deadline": 60, "trial": True,
               "units": [{"unit": "web", "processes": 1, "health": "http://site/healthz",
                          "trial": "echo $$ > pid; exec sleep 60; : {socket}"}]}
    probe = subprocess.Popen([sys.executable, ROOT / "fabfile/probe.py", json.dumps(request)])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert probe.poll() is None
        time.sleep(0.05)
    probe.terminate()
    assert probe.wait(20) == 143
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_trial_that_dies_gives_its_log(tmp_path):
    code, _, words = asked(
        tmp_path, booting=True, deadline=10, health="http://site/healthz",
        trial="echo the reason; exit 3; : {socket}")
    assert code == 1 and "the reason" in words


def test_what_is_in_an_answer():
    assert probe.processes_in([{"w": {"release": 1, "pid": 2}}, {"release": "x"}]) == [
        {"pid": 2, "release": "1"}, {"pid": None, "release": "x"},
    ]
