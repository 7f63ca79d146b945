"""Two runs that meet: which of them waits for the other one."""

import time
from types import SimpleNamespace

import pytest

import inventory
from fabfile import lock
from fabfile.deploy import has_room
from fabfile.env import env
from fabfile.errors import Locked, Refused
from fabfile.fleet import Outcome, Outcomes
from fabfile.reply import Reply

HELD = "lock_owner bob@desk\nlock_purpose deploy\nlock_run elsewhere:1:2:{}\nlock_until 60\n"
FIRST, LATER = time.time_ns() - 10**12, time.time_ns() + 10**12
WEB1, WEB2 = HOSTS = [inventory.Host(f"i-{n}", n, n, n, ()) for n in ("web1", "web2")]


class Releases:
    class fleet:
        hosts = HOSTS


def taken(monkeypatch, *rounds):
    """The hosts that a run gets, where round after round another run has those that are named,
    each with the moment in which it began.
    """
    left = list(rounds)

    def ask(releases, quiet, wanted):
        held = left.pop(0)
        return Outcomes({
            host: Outcome(host, Locked, 4, HELD.format(held[host])) if host in held
            else Outcome(host, stdout="token 2") for host in wanted})

    monkeypatch.setattr(lock, "ask", ask)
    found = lock.take(Releases(), None)
    assert left == []
    return list(found)


def test_the_first_of_two_that_have_some_hosts_each_waits_for_the_later(monkeypatch):
    assert taken(monkeypatch, {WEB2: LATER}, {WEB2: LATER}, {}) == HOSTS


def test_the_later_lets_go(monkeypatch):
    with pytest.raises(Locked, match="web2: bob@desk has it since"):
        taken(monkeypatch, {WEB2: FIRST})


def test_a_run_without_a_host_does_not_wait_for_one_that_has_them_all(monkeypatch):
    with pytest.raises(Locked, match="web1: bob@desk has it since"):
        taken(monkeypatch, {WEB1: LATER, WEB2: LATER})


@pytest.mark.parametrize(("held", "kind", "words"), [
    (HELD.format(LATER) + "lock_token 2\n", Locked, "web1: bob@desk has it since"),
    ("", Refused, "web1: has 20260102030405 already.*--deploy-date names a later one"),
])
def test_a_date_that_another_run_has_just_staged_tells_of_that_run(held, kind, words, monkeypatch):
    monkeypatch.setattr(env, "deploy_date", "20260102030405", raising=False)
    built = SimpleNamespace(bytes=0, files=0)
    with pytest.raises(kind, match=words):
        has_room({WEB1: Reply(held + "release 20260102030405\n")}, built)
