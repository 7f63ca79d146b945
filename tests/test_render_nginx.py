"""render_nginx as CI uses it: no host, no SSH, nothing but this checkout and nginx."""

import time

import pytest

from fabfile import nginx
from fabfile.env import Deploy, Nginx, Solr, env
from tests.conftest import Team, inventory_of
from tests.test_search import LB, MASTER, host

HOSTS = (("lb1", ["nginx"]), ("web1", ["web"]), ("solr1", ["solr", "solr_master"]),
         ("solr2", ["solr", "solr_slave"]))


@pytest.fixture
def team(tmp_path):
    """A team whose hosts nobody can reach."""
    return Team(inventory_of(HOSTS, "192.0.2", tmp_path / "servers.json"))


def test_what_was_rendered_is_checked_and_compared(team, tmp_path):
    out = tmp_path / "build"
    assert "nginx accepts: lb1" in team.fab("render_nginx", "--out", out, "--check")
    assert team.fab("render_nginx", "--diff", out) == ""
    text = team.inventory.read_text()
    team.inventory.write_text(text.replace("192.0.2.4", "192.0.2.9"))
    output = team.fab("render_nginx", "--diff", out, code=1)
    assert "-    server 192.0.2.4:8983 max_fails=1 fail_timeout=5s;\n" in output
    assert "+    server 192.0.2.9:8983 max_fails=1 fail_timeout=5s;\n" in output
    assert "is not what servers.json and the templates give now" in output


def test_a_file_that_is_not_rendered_any_more_is_a_difference(team, tmp_path):
    out = tmp_path / "build"
    team.fab("render_nginx", "--out", out)
    (out / "lb1/old.conf").write_text("old\n")
    assert "-old" in team.fab("render_nginx", "--diff", out, code=1)


def test_what_nginx_refuses_fails(team, tmp_path):
    text = team.inventory.read_text()
    team.inventory.write_text(text.replace('"web"', '"other"'))
    output = team.fab("render_nginx", "--out", tmp_path / "build", "--check", code=1)
    assert "nginx refuses the configuration" in output


def test_a_thousand_servers_render_in_a_second():
    env.deploy, env.nginx, env.solr = Deploy(application="site", deploy_to="site"), Nginx(), Solr()
    hosts = [LB, MASTER]
    hosts += [host(f"web{n}", f"10.1.{n // 250}.{n % 250}", "web") for n in range(500)]
    hosts += [host(f"solr{n}", f"10.2.{n // 250}.{n % 250}", "solr_slave") for n in range(500)]
    started = time.monotonic()
    files = nginx.render(LB, hosts)
    assert time.monotonic() - started < 1
    assert files["search.conf"].count("max_fails=1") == 501
