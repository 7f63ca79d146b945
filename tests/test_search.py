"""The search front as it is rendered, from servers.json alone."""

import pytest

import inventory
from fabfile import nginx
from fabfile.env import Deploy, Nginx, Solr, env


def host(name, address, *roles, **vars):
    return inventory.Host(f"i-{name}", address, address, name, roles, vars=vars)


LB, WEB = host("lb1", "10.0.0.1", "nginx"), host("web1", "10.0.0.2", "web")
MASTER = host("solr1", "10.0.0.3", "solr", "solr_master")
SLAVES = (
    host("solr2", "10.0.0.4", "solr", "solr_slave", solr_weight=3),
    host("solr3", "10.0.0.5", "solr", "solr_slave", solr_down=True),
)


@pytest.fixture(autouse=True)
def settings():
    env.deploy, env.nginx, env.solr = Deploy(application="site", deploy_to="site"), Nginx(), Solr()


def rendered(*solrs):
    return nginx.render(LB, (LB, WEB, *solrs))


def servers(text, upstream):
    """The lines of an upstream."""
    block = text.partition(f"upstream {upstream} {{")[2].partition("}")[0]
    return [line.strip() for line in block.splitlines() if "server " in line]


def test_reads_are_shared_by_the_slaves_and_writes_go_to_the_master():
    text = rendered(MASTER, *SLAVES)["search.conf"]
    assert servers(text, "search_reads") == [
        "server 10.0.0.4:8983 weight=3 max_fails=1 fail_timeout=5s;",
        "server 10.0.0.5:8983 max_fails=1 fail_timeout=5s down;",
        "server 10.0.0.3:8983 max_fails=1 fail_timeout=5s backup;",
    ]
    assert servers(text, "search_writes") == ["server 10.0.0.3:8983 max_fails=0;"]
    assert "    listen 10.0.0.1:8983;" in text.splitlines()


def test_a_master_alone_answers_reads_too():
    text = rendered(MASTER)["search.conf"]
    assert servers(text, "search_reads") == ["server 10.0.0.3:8983 max_fails=1 fail_timeout=5s;"]


def test_there_is_none_without_a_solr():
    files = rendered()
    assert "search.conf" not in files["nginx.conf"]
    assert "listen" not in files["search.conf"]


def test_nginx_accepts_it():
    assert nginx.complaint(LB, (LB, WEB, MASTER, *SLAVES)) == ""
