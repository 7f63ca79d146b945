"""The cores as they are rendered for a master and a slave, from servers.json alone."""

from xml.etree import ElementTree

import pytest

import inventory
from fabfile import cores
from fabfile.env import Solr, env
from fabfile.errors import Usage


def host(name, address, *roles):
    return inventory.Host(f"i-{name}", address, address, name, roles)


MASTER = host("solr1", "10.0.0.1", "solr", "solr_master")
SLAVE = host("solr2", "10.0.0.2", "solr", "solr_slave")
HOSTS = (MASTER, SLAVE)
CONFIG = "conference/conf/solrconfig.xml"


@pytest.fixture(autouse=True)
def settings():
    env.solr = Solr(poll="00:00:02")


def config(which, hosts=HOSTS):
    return ElementTree.fromstring(cores.render(which, hosts)[CONFIG])


def handlers(which):
    """path → class of the handlers in a rendered solrconfig.xml."""
    return {one.get("name"): one.get("class") for one in config(which).iter("requestHandler")}


def texts(which, section):
    """The named texts of a section of the replication handler."""
    found = config(which).findall(f".//lst[@name='{section}']/*")
    return {one.get("name"): one.text for one in found}


def test_a_folder_is_a_core():
    assert cores.names() == ["conference"]
    assert set(cores.render(MASTER, HOSTS)) == {CONFIG, "conference/conf/schema.xml"}


def test_a_slave_follows_the_master_of_servers_json():
    assert texts(SLAVE, "follower") == {
        "enable": "${follows:true}",
        "leaderUrl": "http://10.0.0.1:8983/solr/conference",
        "pollInterval": "00:00:02",
        "httpConnTimeout": "3000",
        "httpReadTimeout": "20000",
    }
    assert texts(MASTER, "follower") == {}
    assert texts(MASTER, "leader") == {"replicateAfter": "commit"}  # the last one of the two


def test_only_the_master_takes_updates():
    assert handlers(MASTER)["/update"] == "solr.UpdateRequestHandler"
    updates = {path: kind for path, kind in handlers(SLAVE).items() if "update" in path}
    assert set(updates) == {"/update", "/update/json", "/update/json/docs", "/update/csv"}
    assert set(updates.values()) == {"${update.handler:solr.NotFoundRequestHandler}"}


def test_reads_stay_on_their_core_and_nothing_is_streamed():
    for which in HOSTS:
        found = config(which)
        reads = found.find("initParams")
        assert "/select" in reads.get("path").split(",")
        assert reads.find("lst[@name='invariants']/str[@name='distrib']").text == "false"
        parsers = found.find("requestDispatcher/requestParsers").attrib
        assert (parsers["enableRemoteStreaming"], parsers["enableStreamBody"]) == ("false", "false")
        assert found.find("requestDispatcher").get("handleSelect") == "false"


def test_the_fingerprint_is_that_of_all_files(tmp_path, monkeypatch):
    def fingerprint():
        return config(SLAVE).find(".//str[@name='fingerprint']").text

    before = fingerprint()
    assert before == fingerprint() and len(before) == 16
    assert before != config(MASTER).find(".//str[@name='fingerprint']").text
    schema = cores.FOLDER / "conference/conf/schema.xml"
    text = schema.read_text()
    monkeypatch.setattr(type(schema), "read_text", lambda path: text + "<!-- changed -->")
    assert before != fingerprint()


@pytest.mark.parametrize(
    ("hosts", "reason"),
    [
        ((SLAVE,), "solr_master: none has it"),
        ((MASTER, host("other", "10.0.0.3", "solr_master")), "solr_master: solr1, other"),
        ((MASTER, host("solr2", "10.0.0.2", "solr")), "solr2 must have one of the roles"),
        ((MASTER, host("solr2", "10.0.0.2", "solr_slave", "solr_master")), "solr1, solr2"),
    ],
)
def test_hosts_that_make_no_fleet_are_named(hosts, reason):
    with pytest.raises(Usage, match=reason):
        cores.render(hosts[-1], hosts)


def test_an_address_can_only_be_a_word():
    hostile = host("solr1", "10.0.0.1</str>", "solr_master")
    with pytest.raises(Usage, match="solrconfig"):
        cores.render(SLAVE, (hostile, SLAVE))
