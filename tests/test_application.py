"""The commands that restart the units of a host."""

import subprocess

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


def test_the_units_of_a_host_are_restarted_side_by_side(units):
    units(web=Unit(roles=("web",)), beat=Unit(roles=("beat",)), celery=Unit(roles=("celery",)))
    web, celery, end = application.restarting(QUEUE1).split(" & ")
    assert "systemctl restart web.service" in web and "celery" not in web
    assert "systemctl restart celery.service" in celery
    assert end.endswith("exit $failed)")


@pytest.mark.parametrize(("commands", "code"), [
    (("sleep 0.2", "true"), 0), (("false", "sleep 0.2"), 1), (("sleep 0.2; exit 3", "true"), 3)])
def test_what_runs_side_by_side_fails_if_one_does(commands, code):
    done = subprocess.run(["sh", "-c", application.at_once(commands)], timeout=10)
    assert done.returncode == code


def test_a_unit_is_drained_by_the_login_before_its_restart_whatever_comes_of_it(units):
    units(web=Unit(roles=("web",)), celery=Unit(roles=("celery",), drain="drain celery@{name}"))
    drained, _, restarted = application.restarting(QUEUE1, only=["celery"]).partition("; ")
    assert drained == ("(cd 'my site/current' && PATH=.venv/bin:$PATH "
                       "exec timeout -s INT 7 sh -c 'drain celery@queue1') >&2")
    assert restarted.startswith("sudo -n sh -c ")
