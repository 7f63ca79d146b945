"""What nginx's access log says of a release, read by the real command."""

import subprocess
import time
from types import SimpleNamespace

import pytest

from fabfile import watch
from fabfile.env import Nginx, Prove, env
from fabfile.errors import Failed
from fabfile.fleet import Outcome


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setattr(env, "nginx", Nginx(), raising=False)
    monkeypatch.setattr(env, "prove", Prove(), raising=False)


class Here:
    """A fleet whose two hosts have the same log."""

    def __init__(self, home):
        self.home = home

    def run(self, command, step):
        done = subprocess.run(["sh", "-c", command], cwd=self.home, capture_output=True, text=True)
        assert done.stderr == ""
        outcome = Outcome(None, stdout=done.stdout)
        return SimpleNamespace(check=lambda: {"lb1": outcome, "lb2": outcome})


@pytest.fixture
def log(tmp_path):
    """Writes requests of (seconds ago, status) to the access log."""
    (tmp_path / "logs").mkdir()

    def write(*requests):
        now = time.time()
        lines = []
        for ago, status in requests:
            moment = time.strftime("%FT%T%z", time.localtime(now - ago))
            iso = f"{moment[:-2]}:{moment[-2:]}"
            lines.append(f'10.0.0.1 [{iso}] "GET /a\\x22b HTTP/1.1" {status} 5 0.001 s\n')
        (tmp_path / "logs/nginx-access.log").write_text("".join(lines))
        return Here(tmp_path)

    return write


def test_requests_are_counted_before_and_after_the_switch_on_every_host(log):
    fleet = log((90, 500), (50, 200), (40, 502), (39, 404), (8, 200), (7, 500), (2, 503), (1, 200))
    assert watch.counts(fleet, 20.5) == ((6, 2), (8, 4))


def test_a_log_without_requests(log):
    assert watch.counts(log(), 5) == ((0, 0), (0, 0))


def test_more_errors_than_in_the_minute_before():
    said = "40 of 400 requests since the switch failed on a server, 10 of 1000 in the minute before"
    with pytest.raises(Failed, match=f"^{said}$"):
        watch.compare(((1000, 10), (400, 40)))


@pytest.mark.parametrize("counted", [
    ((1000, 100), (400, 50)),  # it was bad before
    ((1000, 0), (400, 19)),  # within prove.errors
    ((0, 0), (5, 3)),  # too few to say
    ((0, 0), (0, 0)),
])
def test_no_worse_than_before(counted):
    watch.compare(counted)
