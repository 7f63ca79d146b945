"""Which deploy is gone on with."""

import pytest

from fabfile.errors import Refused
from fabfile.reply import Reply
from fabfile.resume import purpose, unfinished


class Host:
    def __init__(self, name):
        self.name = name


def before(**hosts):
    return {Host(name): Reply(text) for name, text in hosts.items()}


def test_what_locks_say_names_the_deploy():
    said = purpose("20261124083000", "0123456789abcdef")
    assert said == "deploy 20261124083000 of 0123456789"
    found = before(web1=f"unfinished {said}", web2="current -")
    assert unfinished(found) == ("20261124083000", "0123456789")


def test_a_host_that_has_switched_had_another_release_before():
    found = before(web1="current 20261124083000\npending 20261123083000 20261124083000\n"
                        "unfinished deploy 20261124083000 of 0123456789",
                   web2="current 20261123083000\npending - 20261123083000")
    unfinished(found)
    assert [r.get("current") for r in found.values()] == ["20261123083000", "20261123083000"]


@pytest.mark.parametrize("text", ["", "unfinished -", "unfinished rollback 20261124083000"])
def test_there_is_nothing_to_go_on_with(text):
    with pytest.raises(Refused, match=r"^no host was left in a deploy that could be resumed"):
        unfinished(before(web1=text))


def test_two_deploys_are_one_too_many():
    found = before(web1="unfinished deploy 20261124083000 of 0123456789",
                   web2="unfinished deploy 20261124093000 of 0123456789")
    with pytest.raises(Refused, match=r"in different deploys[^\n]*\nweb1: deploy 2"):
        unfinished(found)
