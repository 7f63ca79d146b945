"""A host whose run falls silent between publish and commit goes back by itself."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.test_release_sh import SCRIPT, Host

ONE, TWO = "20261124080000", "20261124090000"


@pytest.fixture
def host(tmp_path):
    """ONE is live, TWO is staged, and the lease is a second long."""
    (tmp_path / "home").mkdir()
    host = Host(tmp_path / "home")
    host.do("setup")
    host.lock()
    host.deploy(ONE)
    host.stage(TWO, {"a": b"2"})
    yield host
    eventually(lambda: not watchers(host))


def publish(host, lease=1, restart='echo "$TOKEN" >>restarted'):  # at home
    return host.do("publish", DATE=TWO, LEASE=lease, RESTART=restart)


def watchers(host):
    """The pids of `expire` processes of this host."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if is_watcher(folder, host)]


def is_watcher(folder, host):
    try:
        words = (folder / "cmdline").read_text().split("\0")
        return words[-2:] == ["expire", ""] and os.readlink(folder / "cwd") == str(host.root)
    except OSError:
        return False


def test_it_goes_back_and_restarts_what_it_restarted(host):
    publish(host)
    assert host.current == TWO
    eventually(lambda: (host.home / "restarted").exists())
    assert host.current == ONE
    assert "pending" not in host.do("preflight").facts
    last = host.audit()[-1]
    assert (last["verb"], last["outcome"], last["from"], last["to"]) == ("expire", "ok", TWO, ONE)


def test_a_commit_that_comes_too_late_is_refused(host):
    publish(host)
    eventually(lambda: host.current == ONE)
    answer = host.ask("commit", DATE=TWO)
    assert (answer.code, answer.stdout) == (6, "nothing pending\n")
    assert host.line == [ONE]


def test_a_run_that_renews_its_lease_is_waited_for(host):
    publish(host, lease=4)
    for _ in range(6):
        time.sleep(1)
        host.do("renew", LEASE=4)
    host.do("commit", DATE=TWO)
    eventually(lambda: not watchers(host))
    assert host.current == TWO and not (host.home / "restarted").exists()


def test_a_run_that_unlocks_without_a_commit_has_given_up(host):
    publish(host, lease=60)
    host.do("unlock")
    eventually(lambda: (host.home / "restarted").exists())
    assert host.current == ONE


def test_it_survives_the_end_of_the_login(host):
    process = host.start("publish", DATE=TWO, LEASE=2, RESTART="true")
    process.communicate(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    eventually(lambda: host.current == ONE)


def test_another_run_that_took_over_settles_it_instead(host):
    publish(host, lease=1)
    time.sleep(1.1)
    other = Host(host.home)
    answer = other.lock(OWNER="bob@desk", LEASE=60)
    eventually(lambda: not watchers(host))
    assert host.current == ONE
    assert ("reverted" in answer.facts) != (host.home / "restarted").exists()


def test_a_restart_that_fails_is_on_record(host):
    publish(host, restart="echo no such unit; exit 1")
    eventually(lambda: host.audit()[-1]["verb"] == "expire")
    assert host.audit()[-1]["outcome"] == "failed"
    assert "no such unit" in (host.root / "state/expire.log").read_text()


def test_without_a_way_to_restart_nothing_waits(host):
    host.do("publish", DATE=TWO, LEASE=1)
    assert watchers(host) == []
    host.do("revert")


def test_by_hand_it_does_nothing_where_nothing_is_pending(host):
    done = subprocess.run(["sh", SCRIPT, "expire"], cwd=host.home, timeout=10,
                          env={"HOME": str(host.home), "DEPLOY_TO": "my app", "TOKEN": host.token,
                               "PATH": os.environ["PATH"]})
    assert done.returncode == 0 and host.current == ONE
