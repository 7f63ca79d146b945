"""What release.sh is asked and what its answers mean."""

import os
import subprocess

import inventory
from fabfile.env import env
from fabfile.errors import Failed
from fabfile.fleet import Outcome, Outcomes
from fabfile.release import REMOTE, Releases, not_ready, skew, unfit
from fabfile.reply import Replies, Reply
from fabfile.run import is_dead, started, this_run

ONE, TWO = "20261124083001", "20261124083002"


def test_the_exact_command_of_a_verb():
    command = Releases.command("publish", {"DEPLOY_TO": "a b", "TOKEN": None, "DATE": "1"})
    assert command == (
        f"[ -f {REMOTE} ] || {{ echo script missing; exit; }}; DEPLOY_TO='a b' DATE=1 "
        f"sh {REMOTE} publish; s=$?; [ $s != 20 ] || {{ echo script missing; exit; }}; exit $s"
    )


def test_a_host_without_the_script_says_so(tmp_path):
    command = Releases.command("list", {})
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "script missing\n")


def test_replies_are_key_value_lines():
    reply = Reply("current 20261124083000\nmissing .env\nmissing a b\nprevious -\nempty\n")
    assert reply.date("current") == "20261124083000"
    assert reply.all("missing") == [".env", "a b"]
    assert reply.date("previous") is None
    assert reply.date("next") is None
    assert reply.get("empty", "?") == ""


def test_why_a_host_is_not_fit():
    assert list(unfit(Reply("setup no"))) == ["not set up: run `fab setup`"]
    assert list(unfit(Reply("setup yes\nforeign /srv/a/current\nmissing .env"))) == [
        "/srv/a/current was not made by this toolkit: `fab adopt` takes it over",
        "shared .env is missing: `fab put_shared FILE --name .env` puts it there",
    ]
    assert list(unfit(Reply("setup yes"))) == []


def test_hosts_that_only_waited_are_not_what_failed():
    waited = Outcome("web1", Failed, 1, f"ready\nreverted {TWO} {ONE}\n", reason="no word")
    full = Outcome("web2", Failed, 1, reason="no room")
    both = Outcomes({"web1": waited, "web2": full})
    assert not_ready(both) == {"web2": full}
    assert not_ready(Outcomes({"web1": waited})) == {"web1": waited}
    assert not_ready(Outcomes({"web1": Outcome("web1")})).check()


def test_the_skew_of_a_publish():
    hosts = {name: Reply(f"switched 1795500000.{name}") for name in ("100", "350")}
    assert round(skew(hosts), 3) == 0.25
    assert skew(Replies()) == 0


def test_a_run_on_this_machine_is_alive_until_it_ends():
    assert not is_dead(this_run())
    child = subprocess.Popen(["true"])
    child.wait()
    machine, _, rest = this_run().partition(":")
    assert is_dead(f"{machine}:{child.pid}:{rest.partition(':')[2]}")
    assert is_dead(f"{machine}:{os.getpid()}:1:2")
    assert not is_dead(f"elsewhere:{child.pid}:1:2")
    assert not is_dead("")


def test_which_run_began_first():
    assert started("m:1:2:100") < started("m:1:2:200")
    assert started("nonsense") == 0


def test_hosts_without_units_get_no_secret():
    from fabfile.application import needs
    from fabfile.env import Deploy, Unit

    env.deploy = Deploy(application="a", deploy_to="a", shared_files=(".env",))
    env.units = {"web": Unit(roles=("web",))}
    assert needs(inventory.Host("i", "", "10.0.0.1", "lb1", ("nginx",))) == {}
    assert needs(inventory.Host("i", "", "10.0.0.2", "w", ("web",)))["SHARED_FILES"] == ".env"
