"""The site's search suite on a real Solr, through nginx's one URL."""

import pytest

from tests.conftest import Team, inventory_of
from tests.test_site_suite import tested  # noqa: F401

pytest_plugins = ["tests.released"]
pytestmark = pytest.mark.story
FLEET = (("lb1", ["nginx"]), ("web1", ["web"]), ("solr1", ["solr", "solr_master"]))


@pytest.fixture
def front(tmp_path_factory):
    """The URL of a search front with one Solr behind it."""
    team = Team(inventory_of(FLEET, "127.0.33", tmp_path_factory.mktemp("f") / "servers.json"))
    try:
        team.fab("sandbox_up")
        team.fab("setup")
        team.fab("deploy_solr", "deploy_nginx")
        yield "http://127.0.33.1:8983/solr/conference"
    finally:
        team.fab("sandbox_down")


def test_the_search_on_solr(request, front):
    site = request.getfixturevalue("tested")
    words = ("python", "manage.py", "test", "tests.test_search")
    print(site.run(*words, seconds=300, SEARCH_URL=front))
