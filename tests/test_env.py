"""Settings are typed; what is misspelt is refused with the nearest spelling."""

import pytest

import inventory
from fabfile.env import Env, instant
from fabfile.errors import Usage

DEPLOY = {"application": "shop", "deploy_to": "shop"}
HOST = inventory.Host("i-1", "", "10.0.0.1", "web1", ("web",))


def loaded(**sections):
    env = Env()
    env.load({"deploy": DEPLOY, **sections}, inventory=None)
    return env


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"deploi": {}}, "unknown section deploi; did you mean deploy?"),
        ({"deploy": {**DEPLOY, "kep": 3}}, "unknown setting deploy.kep; did you mean keep?"),
        ({"deploy": {"application": "shop"}}, "deploy.deploy_to is missing"),
        ({"deploy": {**DEPLOY, "keep": "five"}}, "deploy.keep must be a whole number, not 'five'"),
        ({"deploy": {**DEPLOY, "keep": True}}, "deploy.keep must be a whole number, not True"),
        ({"deploy": {**DEPLOY, "build": "make"}}, "deploy.build must be a list, not 'make'"),
        ({"deploy": {**DEPLOY, "build": [1]}}, "deploy.build must be text, not 1"),
        ({"units": {"web": {}}}, "units.web.roles is missing"),
        ({"units": {"web": {"roles": ["web"], "helth": ""}}}, "units.web.helth; did you mean"),
        ({"fleet": []}, "fleet must be a mapping of settings"),
        ({"inventory": {"regoin": ""}}, "inventory.regoin; did you mean region?"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(sections, words):
    with pytest.raises(Usage) as caught:
        loaded(**sections)
    assert words in str(caught.value)


def test_sections_have_types_and_defaults():
    env = loaded(units={"web": {"roles": ["web"], "processes": 2}})
    assert env.deploy.keep == 5
    assert env.units["web"].processes == 2
    assert env.units_of(HOST) == ["web"]
    assert env.address(HOST) == "10.0.0.1"


def test_an_empty_public_dns_falls_back_to_the_private_one():
    assert loaded(fleet={"connect_with": "public_dns"}).address(HOST) == "10.0.0.1"


def test_a_teams_own_attributes_are_kept():
    env = loaded()
    env.ticket = "OPS-7"
    assert env.ticket == "OPS-7"


def test_the_deploy_date_is_one_instant_of_utc():
    assert instant("20261124083000") == "20261124083000"
    assert len(loaded().deploy_date) == 14
    for wrong in ("", "2026", "20261324083000", "latest"):
        with pytest.raises(Usage, match="not a deploy date"):
            instant(wrong)
