"""The commands that restart the units of a host."""

import pytest

import inventory
from fabfile import application
from fabfile.env import Deploy, FleetSettings, Services, Unit, env

QUEUE1 = inventory.Host("i-1", "queue1", "queue1", "queue1", ("web", "celery"))


@pytest.fixture
def units(monkeypatch):
    def given(**units):
        monkeypatch.setattr(env, "units", units, raising=False)

    for name, value in {"deploy": Deploy(application="site", deploy_to="my site"),
                        "services": Services(manager="systemd", sudo=True, drain=7),
                        "fleet": FleetSettings()}.items():
        monkeypatch.setattr(env, name, value, raising=False)
    return given


def test_units_are_restarted_in_the_order_of_fabric_yml(units):
    units(web=Unit(roles=("web",)), beat=Unit(roles=("beat",)), celery=Unit(roles=("celery",)))
    web, celery = application.restarting(QUEUE1).split(" && sudo")
    assert "systemctl restart web.service" in web and "celery" not in web
    assert "systemctl restart celery.service" in celery


def test_a_unit_is_drained_by_the_login_before_its_restart_whatever_comes_of_it(units):
    units(web=Unit(roles=("web",)), celery=Unit(roles=("celery",), drain="drain celery@{name}"))
    drained, _, restarted = application.restarting(QUEUE1, only="celery").partition("; ")
    assert drained == ("(cd 'my site/current' && PATH=.venv/bin:$PATH "
                       "exec timeout -s INT 7 sh -c 'drain celery@queue1') >&2")
    assert restarted.startswith("sudo -n sh -c ")
