"""The site's search on a real Solr, through nginx's one URL; two indexers at once on PostgreSQL."""

import json
import shutil
import signal
import subprocess
import urllib.request
from types import SimpleNamespace

import pytest

from tests.conftest import Team, inventory_of
from tests.released import host, wait_for
from tests.test_site_suite import search_suite, tested  # noqa: F401

pytest_plugins = ["tests.released"]
pytestmark = pytest.mark.story
FLEET = (("lb1", ["nginx"]), ("web1", ["web"]), ("solr1", ["solr", "solr_master"]),
         ("db1", ["db"]))
DATABASE = [host("web1", "127.0.33.2", "web"), host("db1", "127.0.33.4", "db")]
ROWS = 6000
FILL = (f"from directory.models import Speaker; "
        f"Speaker.objects.bulk_create(Speaker(name=f'Walrus {{n}}') for n in range({ROWS}))")


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """The url of a search front with one Solr behind it, and the secrets of a database."""
    folder = tmp_path_factory.mktemp("f")
    team = Team(inventory_of(FLEET, "127.0.33", folder / "servers.json"))
    try:
        team.fab("sandbox_up")
        team.fab("setup")
        team.fab("deploy_solr", "deploy_nginx")
        yield SimpleNamespace(url="http://127.0.33.1:8983/solr/conference",
                              env=folder / ".sandbox/shared/.env")
    finally:
        team.fab("sandbox_down")


def test_the_search_on_solr(request, front, record_property):
    search_suite(request.getfixturevalue("tested"), front.url, record_property)


def found(front):
    with urllib.request.urlopen(f"{front.url}/select?q=*:*&rows=0", timeout=10) as answer:
        return json.load(answer)["response"]["numFound"]


def test_two_indexers_share_the_work_and_one_that_is_killed_costs_nothing(front, publish):
    site = publish(DATABASE)
    shutil.copy(front.env, site.root / ".env")  # the database's password
    with (site.root / ".env").open("a") as env:
        env.write(f"SEARCH_URL={front.url}\nSEARCH_UPDATES=batched\n")
    site.manage("migrate", "-v0")
    site.manage("clear_index", "--noinput", "-v0")
    site.manage("shell", "-v0", "-c", FILL)
    command = site.command("python", "manage.py", "index_flagged")
    one = subprocess.Popen(**command, stdout=subprocess.PIPE)
    wait_for(lambda: found(front) > ROWS / 10, "the first rows")
    one.send_signal(signal.SIGSTOP)  # in the middle of its share, which stays locked
    said = site.manage("index_flagged")
    assert 0 < int(said.split()[1]) < ROWS, said
    one.kill()
    one.communicate()
    assert one.returncode == -9, "it had ended before"
    site.manage("index_flagged")  # the share that the killed one had taken
    assert "directory.speaker" in site.manage("check_index")
    assert found(front) > ROWS
