"""servers.json as people write it: what is read, how hosts are chosen, what a mistake is told."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import inventory

ROOT = Path(inventory.__file__).parent


def entry(name="web1", number=1, **more):
    return {
        "name": name,
        "roles": ["web"],
        "private_dns": f"10.0.0.{number}",
        "public_dns": "",
        "instance_id": f"i-{number:017x}",
    } | more


@pytest.fixture
def write(tmp_path):
    """Writes servers.json: a list of hosts, text or bytes."""

    def writer(content):
        path = tmp_path / "servers.json"
        content = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


def complaint(path):
    with pytest.raises(inventory.InventoryError) as caught:
        inventory.load(path)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def run(*arguments, python=(sys.executable,), cwd="/"):
    command = [*python, str(ROOT / "inventory.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=30)


# The committed fleet


def test_committed_fleet_is_the_demo():
    fleet = inventory.load()
    names = "lb1 web1 web2 queue1 queue2 solr1 solr2 solr3 cache1 cache2 redis1 db1"
    assert " ".join(host.name for host in fleet.hosts) == names
    assert [host.private_dns for host in fleet.hosts] == [f"127.0.1.{n}" for n in range(1, 13)]
    assert all(host.public_dns == host.private_dns for host in fleet.hosts)
    assert {host.port for host in fleet.hosts} == {2222}
    roles = "nginx web celery beat monitor solr solr_master solr_slave memcached redis inbox db"
    assert " ".join(fleet.roles) == roles


def test_committed_file_is_as_dump_writes_it():
    path = ROOT / "servers.json"
    assert inventory.dump(inventory.load(path)) == path.read_text()


def test_hosts_of_a_role_and_of_none():
    assert [host.name for host in inventory.hosts("memcached")] == ["cache1", "cache2"]
    assert inventory.hosts("xapian") == ()


def test_optional_keys_and_their_absence(write):
    path = write([entry(user="deploy", port=22, vars={"weight": 3}), entry("web2", 2)])
    first, second = inventory.load(path).hosts
    assert (first.user, first.port, first.vars) == ("deploy", 22, {"weight": 3})
    assert (second.user, second.port, second.vars) == (None, None, {})
    assert second.public_dns == ""
    assert len({first, second}) == 2  # hosts are keys of dicts


def test_a_host_without_roles_and_a_fleet_without_hosts(write):
    assert inventory.load(write([entry(roles=[])])).roles == ()
    assert inventory.load(write("[]")).hosts == ()


def test_byte_order_mark_is_not_a_mistake(write):
    assert inventory.load(write(b"\xef\xbb\xbf" + json.dumps([entry()]).encode())).hosts


# Choosing


@pytest.mark.parametrize(
    "asked, names",
    [
        ({"roles": ["web"]}, "web1 web2"),
        ({"hosts": ["web2", "lb1"]}, "lb1 web2"),
        ({"hosts": ["127.0.1.4"], "roles": ["celery", "beat"]}, "queue1 queue2"),
        ({"roles": ["solr"], "exclude": ["solr_master"]}, "solr2 solr3"),
        ({"roles": ["solr"], "exclude": ["solr3", "127.0.1.6"]}, "solr2"),
        ({"roles": ["web"], "exclude": ["db"]}, "web1 web2"),
        ({"hosts": ["web1"], "exclude": ["web"]}, ""),
        ({}, ""),
        ({"exclude": ["web"]}, ""),
    ],
)
def test_select(asked, names):
    assert [host.name for host in inventory.load().select(**asked)] == names.split()


def test_select_by_either_address(write):
    fleet = inventory.load(write([entry(public_dns="www.example.com"), entry("web2", 2)]))
    assert fleet.select(hosts=["www.example.com"]) == fleet.select(hosts=["10.0.0.1"])
    assert fleet.find("www.example.com").name == "web1"
    assert fleet.find("") is fleet.find("nowhere") is None


@pytest.mark.parametrize(
    "asked, told",
    [
        (
            {"roles": ["memcache"]},
            "no role 'memcache'; did you mean memcached? known: nginx, web, ",
        ),
        ({"hosts": ["wbe1"]}, "no host 'wbe1'; did you mean web1? known: lb1, web1, web2, "),
        ({"hosts": ["web"]}, "no host 'web'; did you mean web"),
        ({"exclude": ["solr_slaev"]}, "no host or role 'solr_slaev'; did you mean solr_slave? "),
        ({"exclude": ["zzz"]}, "no host or role 'zzz'; known: lb1, "),
    ],
)
def test_select_unknown(asked, told):
    with pytest.raises(inventory.InventoryError) as caught:
        inventory.load().select(**asked)
    assert str(caught.value).startswith(f"{ROOT}/servers.json: {told}")
    assert caught.value.exit_code == 2


def test_a_long_list_of_known_hosts_is_cut(write):
    fleet = inventory.load(write([entry(f"h{n}", n) for n in range(1, 61)]))
    with pytest.raises(inventory.InventoryError, match=r"h40 and 20 more$"):
        fleet.select(hosts=["zzz"])


# Mistakes


@pytest.mark.parametrize(
    "content, told",
    [
        ("", "is empty; write [] for a fleet without hosts"),
        (" \n", "is empty; write [] for a fleet without hosts"),
        (
            "[\n  {]",
            "line 2, column 4: not JSON: Expecting property name enclosed in double quotes",
        ),
        ('[{"name": "web1",}]', "line 1, column 18: not JSON: "),
        ("\x00", "line 1, column 1: not JSON: Expecting value"),
        (b"[\n\xff]", "line 2: is not UTF-8; save it as UTF-8"),
        ('[{"vars": {"x": NaN}}]', "NaN is not a number JSON can carry; write another"),
        ('[{"vars": {"x": 1e999}}]', "1e999 is not a number JSON can carry; write another"),
        ("[" * 100_000, "is nested too deep; a host is one flat {…}"),
        ('{"web1": {}}', "is {'web1': {}}; it must be a list: [{…}, {…}]"),
        ("null", "is None; it must be a list: [{…}, {…}]"),
        (["web1"], "host 1: is 'web1'; it must be {…}"),
        ([entry(), []], "host 2: is []; it must be {…}"),
        ([{}], "host 1: has no name, no roles, no private_dns, no public_dns, no instance_id; add"),
        (
            '[{"name": "web1", "name": "web2"}]',
            "host 'web2': has the key 'name' twice; keep one",
        ),
        ('[{"vars": {"x": 1, "x": 2}}]', "an object: has the key 'x' twice; keep one"),
    ],
)
def test_not_an_inventory(write, content, told):
    assert complaint(write(content)).startswith(told)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"role": []}, "no key 'role'; did you mean roles? known: name, roles, private_dns, "),
        ({"public_dsn": ""}, "no key 'public_dsn'; did you mean public_dns? "),
        ({"colour": 1}, "no key 'colour'; known: name, "),
        ({"roles": "web"}, "roles is 'web'; it must be a list of different roles"),
        ({"roles": ["web server"]}, "roles is ['web server']; it must be a list of different "),
        ({"roles": ["web;reboot"]}, "roles is ['web;reboot']; it must be"),
        ({"roles": ["web\n"]}, "roles is ['web\\n']; it must be"),
        ({"roles": ["web", "web"]}, "roles is ['web', 'web']; it must be a list of different"),
        ({"roles": [["web"]]}, "roles is [['web']]; it must be"),
        ({"private_dns": ""}, "private_dns is ''; it must be a DNS name or an IPv4 address"),
        ({"private_dns": "10.0.0.256"}, "private_dns is '10.0.0.256'; it must be a DNS name"),
        ({"private_dns": "10.0.0"}, "private_dns is '10.0.0'; it must be"),
        ({"private_dns": "-oProxyCommand=x"}, "private_dns is '-oProxyCommand=x'; it must be"),
        ({"private_dns": "a_b.internal"}, "private_dns is 'a_b.internal'; it must be"),
        ({"private_dns": "web1.internal\n"}, "private_dns is 'web1.internal\\n'; it must be"),
        ({"private_dns": "x" * 64}, f"private_dns is '{'x' * 64}'; it must be"),
        ({"private_dns": ".".join(["x" * 63] * 4)}, "private_dns is 'xxx"),
        ({"private_dns": 10}, "private_dns is 10; it must be"),
        ({"public_dns": "http://x"}, "public_dns is 'http://x'; it must be a DNS name, an IPv4 "),
        ({"public_dns": None}, "public_dns is None; it must be"),
        ({"instance_id": ""}, "instance_id is ''; it must be up to 64 letters, digits"),
        ({"user": "root -v"}, "user is 'root -v'; it must be"),
        ({"user": None}, "user is None; it must be"),
        ({"port": 0}, "port is 0; it must be a number from 1 to 65535"),
        ({"port": 65536}, "port is 65536; it must be"),
        ({"port": "22"}, "port is '22'; it must be"),
        ({"port": True}, "port is True; it must be"),
        ({"port": 22.0}, "port is 22.0; it must be"),
        ({"vars": []}, "vars is []; it must be an object"),
        ({"vars": {"a-b": 1}}, "vars is {'a-b': 1}; it must be an object whose keys are letters"),
    ],
)
def test_a_host_written_wrong(write, change, told):
    text = complaint(write([entry(), entry("web2", 2, **change)]))
    assert text.startswith(f"host 2 ('web2'): {told}")


@pytest.mark.parametrize(
    "name", ["", "web 1", "..", ".x", "-x", "a/b", "a;b", "a}", 'a"', "a'", "a\n", "é", "x" * 65]
)
def test_a_name_is_safe_as_a_folder_and_in_a_shell(write, name):
    told = f"host 1 ({name!r}): name is {name!r}; it must be up to 64 letters, digits, "
    assert complaint(write([entry(name)])).startswith(told)


def test_a_missing_key_is_named_with_its_host(write):
    short = entry()
    del short["instance_id"]
    told = "host 1 ('web1'): has no instance_id; add what is missing"
    assert complaint(write([short])) == told


@pytest.mark.parametrize(
    "twin, word",
    [
        ({"name": "web1"}, "web1"),
        ({"name": "WEB1"}, "WEB1"),
        ({"private_dns": "10.0.0.1"}, "10.0.0.1"),
        ({"public_dns": "10.0.0.1"}, "10.0.0.1"),
        ({"name": "10.0.0.1"}, "10.0.0.1"),
        ({"public_dns": "WWW.example.com"}, "WWW.example.com"),
        ({"instance_id": f"i-{1:017x}"}, f"i-{1:017x}"),
    ],
)
def test_two_hosts_never_share_a_word(write, twin, word):
    first, second = entry(public_dns="www.example.com"), entry("web2", 2) | twin
    both = f"web1 ({first['instance_id']}) and {second['name']} ({second['instance_id']})"
    told = f"both {both} have {word}; give each its own"
    assert complaint(write([first, second])) == told


def test_one_host_may_have_one_address_for_both(write):
    assert inventory.load(write([entry(name="10.0.0.1", public_dns="10.0.0.1")])).hosts


def test_no_file_and_not_a_file(tmp_path):
    missing = tmp_path / "none.json"
    assert complaint(missing) == "cannot be read: No such file or directory; use -I FILE"
    assert complaint(tmp_path) == "cannot be read: Is a directory; use -I FILE"


def test_a_path_no_system_takes():
    with pytest.raises(inventory.InventoryError, match="embedded null byte; use -I FILE"):
        inventory.load("servers\0.json")


def test_a_huge_file_is_refused(write):
    path = write("[]")
    os.truncate(path, inventory.LIMIT + 1)
    assert complaint(path) == "is over 16 MB: not an inventory; use -I FILE"


def test_a_huge_object_with_a_late_duplicate_is_quick(write):
    keys = ",".join(f'"k{n}":0' for n in range(300_000))
    assert "has the key 'k0' twice" in complaint(write(f'[{{{keys},"k0":1}}]'))


# As a program


def test_table():
    answer = run("table")
    assert answer.returncode == 0
    lines = answer.stdout.splitlines()
    header = "NAME    ROLES                PRIVATE_DNS  PUBLIC_DNS  INSTANCE_ID          USER  PORT"
    queue = "queue1  celery,beat,monitor  127.0.1.4    127.0.1.4   i-0aa00000000000004  -     2222"
    assert lines[0] == header
    assert lines[4] == queue
    assert len(lines) == 13


def test_a_wrong_file_is_one_line_on_stderr(write):
    path = write([entry(port="x")])
    answer = run("-I", path, "table")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"inventory: {path}: host 1 ('web1'): port is 'x'")
    assert answer.stderr.count("\n") == 1


def test_the_inventory_flag_is_taken_on_either_side(write):
    path = write([entry("only")])
    for arguments in (("-I", path, "table"), ("table", "--inventory", path)):
        assert "only" in run(*arguments).stdout


@pytest.mark.parametrize(
    "arguments", [[], ["tabel"], ["table", "--list"], ["--force", "table"], ["--host"], ["--lis"]]
)
def test_usage(arguments):
    answer = run(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "usage: inventory.py" in answer.stderr


@pytest.mark.parametrize("asked", ["table", "--list"])
def test_a_reader_that_leaves_early_is_no_crash(asked):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, ROOT / "inventory.py", asked]
    answer = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=30)
    os.close(writer)
    assert (answer.returncode, answer.stderr) == (1, b"")


def test_python_alone_is_enough_but_for_refresh():
    alone = (sys.executable, "-I", "-S")
    assert run("table", python=alone).returncode == 0
    assert json.loads(run("--list", python=alone).stdout)["web"] == {"hosts": ["web1", "web2"]}
    answer = run("refresh", python=alone)
    assert answer.returncode == 3
    remedy = "run it with the Python of .venv: .venv/bin/python inventory.py refresh"
    assert answer.stderr == f"inventory: refresh needs yaml; {remedy}\n"


# The page about it


def blocks(language):
    page = (ROOT / "docs" / "inventory.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_page_shows_a_file_that_loads_and_python_that_runs(write):
    [file], [python] = blocks("json"), blocks("python")
    assert [host.name for host in inventory.load(write(file)).hosts] == ["web1", "db1"]
    exec(python.replace('"another.json"', ""), {})


def test_the_page_has_every_key_and_setting():
    page = (ROOT / "docs" / "inventory.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(inventory.RULES)
    settings = yaml.safe_load(blocks("yaml")[-1])["inventory"]
    assert settings.keys() == inventory.SETTINGS.keys()
