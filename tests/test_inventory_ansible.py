"""inventory.py as Ansible's inventory script, asked by the real ansible-inventory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import inventory

ROOT = Path(inventory.__file__).parent
ANSIBLE = Path(sys.executable).parent / "ansible-inventory"


@pytest.fixture
def fork(tmp_path):
    """A team's repository with inventory.py in it: a function that writes its files."""
    shutil.copy(ROOT / "inventory.py", tmp_path)

    def write(hosts, settings=""):
        fleet = inventory.Inventory(tuple(hosts), tmp_path / "servers.json")
        fleet.path.write_text(inventory.dump(fleet))
        (tmp_path / "fabric.yml").write_text(settings)
        return tmp_path / "inventory.py"

    return write


def host(name, number, *roles, public_dns="", **more):
    private = f"10.0.0.{number}"
    return inventory.Host(f"i-{number:017x}", public_dns, private, name, roles, **more)


def ask(program, *arguments):
    command = [sys.executable, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def ansible(program, *arguments):
    """ansible-inventory's answer; it must have nothing to warn of."""
    command = [ANSIBLE, "-i", program, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def test_list_is_exactly_what_the_protocol_asks(fork):
    program = fork(
        [
            host("lb1", 1),
            host("web1", 2, "web", "solr-slave", user="deploy", port=2222, vars={"weight": [1]}),
        ]
    )
    assert json.loads(ask(program, "--list").stdout) == {
        "all": {"hosts": ["lb1", "web1"]},
        "ungrouped": {"hosts": []},
        "web": {"hosts": ["web1"]},
        "solr_slave": {"hosts": ["web1"]},
        "_meta": {
            "hostvars": {
                "lb1": {"ansible_host": "10.0.0.1"},
                "web1": {
                    "ansible_host": "10.0.0.2",
                    "ansible_user": "deploy",
                    "ansible_port": 2222,
                    "weight": [1],
                },
            }
        },
    }


def test_ansible_reads_the_committed_fleet():
    answer = ansible(ROOT / "inventory.py", "--list")
    for role in inventory.load().roles:
        assert answer[role]["hosts"] == [host.name for host in inventory.hosts(role)]
    known = {"ansible_host": "127.0.1.2", "ansible_port": 2222}
    assert answer["_meta"]["hostvars"]["web1"] == known
    assert "hosts" not in answer.get("ungrouped", {})


def test_ansible_sees_roles_user_vars_and_hosts_without_a_role(fork):
    program = fork([host("bare", 1), host("x", 2, "1st-role", user="u", vars={"_a": {"é": None}})])
    answer = ansible(program, "--list")
    assert answer["_st_role"]["hosts"] == ["x"]
    assert answer["ungrouped"]["hosts"] == ["bare"]
    x = {"ansible_host": "10.0.0.2", "ansible_user": "u", "_a": {"é": None}}
    assert answer["_meta"]["hostvars"]["x"] == x
    assert ansible(program, "--host", "x") == x


def test_host_answers_one_hosts_variables(fork):
    program = fork([host("web1", 1, "web", port=22)])
    wanted = {"ansible_host": "10.0.0.1", "ansible_port": 22}
    assert json.loads(ask(program, "--host", "web1").stdout) == wanted
    assert json.loads(ask(program, "--host", "10.0.0.1").stdout) == wanted


def test_an_unknown_host_is_an_error_and_no_json(fork):
    answer = ask(fork([host("web1", 1, "web")]), "--host", "web2")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.endswith("no host 'web2'; did you mean web1? known: web1\n")


def test_values_set_in_the_file_win(fork):
    program = fork([host("web1", 1, "web", vars={"ansible_host": "10.9.9.9"})])
    assert json.loads(ask(program, "--host", "web1").stdout) == {"ansible_host": "10.9.9.9"}


def test_the_address_is_the_one_fabric_connects_to(fork):
    hosts = [host("web1", 1, "web", public_dns="web1.example.com"), host("web2", 2, "web")]
    public = fork(hosts, "fleet: {connect_with: public_dns}")
    known = json.loads(ask(public, "--list").stdout)["_meta"]["hostvars"]
    assert known["web1"]["ansible_host"] == "web1.example.com"
    assert known["web2"]["ansible_host"] == "10.0.0.2"  # it has no public one
    private = fork(hosts, "fleet: {connect_with: private_dns}")
    assert json.loads(ask(private, "--host", "web1").stdout) == {"ansible_host": "10.0.0.1"}


def test_the_settings_are_those_beside_the_inventory_file(fork, tmp_path):
    fork(
        [host("web1", 1, "web", public_dns="web1.example.com")], "fleet: {connect_with: public_dns}"
    )
    answer = ask(ROOT / "inventory.py", "-I", tmp_path / "servers.json", "--host", "web1")
    assert json.loads(answer.stdout) == {"ansible_host": "web1.example.com"}


@pytest.mark.parametrize(
    "settings, told",
    [
        ("fleet: {connect_with: pubic_dns}", "no choice 'pubic_dns'; did you mean public_dns? "),
        ("fleet: [", "cannot be read: while parsing a flow"),
        ("fleet: 5", "write fleet as `key: value` lines"),
        ("- fleet", "write fleet as `key: value` lines"),
    ],
)
def test_settings_that_are_wrong(fork, settings, told):
    answer = ask(fork([host("web1", 1, "web")], settings), "--list")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert told in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("roles", [["a-b", "a_b"], ["all"], ["ungrouped"]])
def test_roles_ansible_would_mix_up(fork, roles):
    program = fork([host("web1", 1, roles[0]), host("web2", 2, roles[-1])])
    answer = ask(program, "--list")
    assert answer.returncode == 2
    assert f"role {roles[-1]} meets another group of Ansible's, " in answer.stderr
