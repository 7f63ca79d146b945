"""What becomes of hosts that have switched, in ways that a fleet does not show on demand."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

import inventory
from fabfile.errors import (
    Failed,
    Fenced,
    Interrupted,
    Refused,
    Reverted,
    Stranded,
    Unreachable,
)
from fabfile.fleet import Outcome, Outcomes
from fabfile.reply import Replies, Reply
from fabfile.switch import all_or_nothing, keep, settle

DATE = "20261124083000"
LB1, WEB1 = HOSTS = [inventory.Host(f"i-{n}", n, n, n, ()) for n in ("lb1", "web1")]


class Fleet:
    def __init__(self, hosts):
        self.hosts = list(hosts)
        self.said = []
        self.say = lambda text, host=None: self.said.append(text)

    def only(self, hosts):
        return Fleet(hosts)


class Releases:
    """Stands for a fleet's releases: hosts in `lost` can't go back, `kept` says how commits end."""

    def __init__(self, lost=(), kept=(None, None)):
        self.lost, self.kept, self.reverted = lost, kept, None
        self.fleet = Fleet(HOSTS)

    def on(self, fleet):
        self.reverting = fleet
        return SimpleNamespace(fleet=fleet, revert=self.revert)

    def revert(self):
        self.reverted = self.reverting.hosts
        return Outcomes({h: Outcome(h, Unreachable if h in self.lost else None, reason="gone")
                         for h in self.reverted})

    def committed(self, date):
        return Outcomes({h: Outcome(h, kind, reason="why")
                         for h, kind in zip(HOSTS, self.kept, strict=True)})

    def preflight(self):
        return "what is there now"


def switch(releases, error, hosts=HOSTS):
    """The hosts whose services were told to follow, once `error` came after the switch."""
    followed = []
    try:
        with all_or_nothing(releases, {}, DATE, lambda fleet, _: followed.extend(fleet.hosts)) as s:
            s += hosts
            raise error
    finally:
        releases.followed = followed


def test_a_run_that_is_fenced_off_reverts_nothing():
    releases = Releases()
    with pytest.raises(Fenced):
        switch(releases, Fenced("lb1: a newer run"))
    assert releases.reverted is None and releases.followed == []


@pytest.mark.parametrize(("error", "kind"), [
    (Failed("no"), Reverted), (KeyboardInterrupt(), Interrupted), (Interrupted("x"), Interrupted)])
def test_what_fails_after_the_switch_goes_back(error, kind):
    releases = Releases()
    with pytest.raises(kind, match="every host is back on the release it had"):
        switch(releases, error)
    assert releases.reverted == releases.followed == HOSTS


def test_a_host_that_has_not_switched_is_left_alone():
    releases = Releases()
    with pytest.raises(Reverted):
        switch(releases, Failed("no"), hosts=[WEB1])
    assert releases.reverted == [WEB1]


def test_a_host_that_cannot_go_back_is_stranded_and_the_others_follow():
    releases = Releases(lost=[LB1])
    with pytest.raises(Stranded, match="lb1: gone\nafter: no"):
        switch(releases, Failed("no"))
    assert releases.followed == [WEB1]


@pytest.mark.parametrize(("kinds", "stop"), [
    ((None, None), None), ((Refused, Refused), Reverted), ((Refused, None), Stranded),
    ((Unreachable, None), Stranded)])
def test_what_a_commit_that_fails_means(kinds, stop):
    with pytest.raises(stop) if stop else nullcontext():
        keep(Releases(kept=kinds), DATE)


def test_services_follow_a_host_that_an_earlier_run_had_left_pending():
    followed, releases = [], Releases()
    taken = Replies({LB1: Reply("token 2"), WEB1: Reply(f"token 2\nreverted {DATE} -")})

    def follow(fleet, before):
        followed.append((fleet.hosts, before))

    assert settle(releases, "before", taken, follow) == "what is there now"
    assert followed == [([WEB1], "what is there now")]
    assert settle(releases, "before", Replies({LB1: Reply("token 2")}), follow) == "before"
