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
    team.inventory.write_text(text.replace('"name": "web1",',
                                           '"name": "web1", "vars": {"nginx_weight": 0},'))
    output = team.fab("render_nginx", "--out", tmp_path / "build", "--check", code=1)
    assert "nginx refuses the configuration" in output


def test_a_host_that_is_gone_does_not_linger(team, tmp_path):
    out, text = tmp_path / "build", team.inventory.read_text()
    team.inventory.write_text(text.replace('"web"', '"web", "nginx"'))
    team.fab("render_nginx", "--out", out)
    (out / "web1/mine").write_text("mine")
    team.fab("render_nginx", "--out", out, "-H", "lb1")
    assert (out / "web1/nginx.conf").exists()  # not chosen, and still there
    team.inventory.write_text(text)
    assert f"--- {out}/web1/nginx.conf" in team.fab("render_nginx", "--diff", out, code=1)
    assert f"removed    {out}/web1/nginx.conf" in team.fab("render_nginx", "--out", out)
    assert [path.name for path in (out / "web1").iterdir()] == ["mine"]
    (out / "web1/mine").unlink()
    assert team.fab("render_nginx", "--diff", out) == ""


def test_a_folder_that_is_a_file_is_one_line(team, tmp_path):
    (tmp_path / "build").touch()
    output = team.fab("render_nginx", "--out", tmp_path / "build", code=2)
    assert output.splitlines()[-1].startswith(f"fab: render_nginx --out {tmp_path}/build: ")
    assert "Traceback" not in output


def test_a_dry_run_writes_nothing(team, tmp_path):
    output = team.fab("--dry", "render_nginx", "--out", tmp_path / "build", "--check")
    assert f"rendered   {tmp_path}/build/lb1" in output
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("task", ["render_nginx", "check_nginx", "deploy_nginx"])
def test_only_hosts_that_have_nginx_and_visitors_are_rendered_for(team, task):
    assert team.fab("-R", "web", task, code=2).splitlines()[-1] == (
        "fab: web1 does not have the role nginx, so there is nothing to render")
    team.inventory.write_text(team.inventory.read_text().replace('"web"', '"other"'))
    assert team.fab(task, code=2).splitlines()[-1] == (
        "fab: servers.json: no host has the role web, to which nginx could send visitors")


def test_a_mark_is_true_or_false(team):
    text = team.inventory.read_text()
    team.inventory.write_text(text.replace('"name": "web1",',
                                           '"name": "web1", "vars": {"nginx_down": "no"},'))
    assert team.fab("render_nginx", code=2) == (
        "fab: templates/nginx/site.conf.j2: line 11: "
        "web1: nginx_down must be true or false, not 'no'\n")


def test_a_thousand_servers_render_in_a_second():
    env.deploy, env.nginx, env.solr = Deploy(application="site", deploy_to="site"), Nginx(), Solr()
    hosts = [LB, MASTER]
    hosts += [host(f"web{n}", f"10.1.{n // 250}.{n % 250}", "web") for n in range(500)]
    hosts += [host(f"solr{n}", f"10.2.{n // 250}.{n % 250}", "solr_slave") for n in range(500)]
    started = time.process_time()
    files = nginx.render(LB, hosts)
    assert time.process_time() - started < 1
    assert files["search.conf"].count("max_fails=1") == 501
