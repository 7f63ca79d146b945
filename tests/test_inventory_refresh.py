"""inventory.py refresh against moto's EC2, and against answers that are none."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

import inventory

ROOT = Path(inventory.__file__).parent


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(autouse=True)
def login(monkeypatch, tmp_path):
    """Credentials and a region from the environment, nothing of the person's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("CONFIG", "SHARED_CREDENTIALS"):
        monkeypatch.setenv(f"AWS_{name}_FILE", str(tmp_path / "no-such-file"))


@pytest.fixture
def ec2(moto, monkeypatch):
    """An empty EC2."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    return boto3.client("ec2", region_name="eu-central-1")


@pytest.fixture
def path(tmp_path):
    (tmp_path / "fabric.yml").write_text("inventory: {region: eu-central-1}")
    return tmp_path / "servers.json"


def start(ec2, name=None, roles=None, **more):
    """Starts one instance, in a reservation of its own; returns the host it should become."""
    tags = [{"Key": k, "Value": v} for k, v in {"Name": name, "Roles": roles, **more}.items() if v]
    tagged = [{"ResourceType": "instance", "Tags": tags}] if tags else []
    answer = ec2.run_instances(
        ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tagged
    )
    [started] = answer["Instances"]
    found = ec2.describe_instances(InstanceIds=[started["InstanceId"]])
    [instance] = found["Reservations"][0]["Instances"]
    return inventory.Host(
        instance["InstanceId"],
        instance["PublicDnsName"],
        instance["PrivateDnsName"],
        name or "none",
        tuple((roles or "").replace(",", " ").split()),
    )


def save(path, *hosts):
    path.write_text(inventory.dump(inventory.Inventory(hosts, path)))
    return path.read_bytes()


def refresh(path, *arguments):
    return inventory.main(["refresh", "-I", str(path), *arguments])


def fleet(size):
    """Hosts that EC2 never heard of."""
    return [
        inventory.Host(f"i-old{n}", "", f"10.1.0.{n}", f"old{n}", ("old",)) for n in range(size)
    ]


def brief(host):
    return f"{host.name} {','.join(host.roles)} {host.private_dns} {host.instance_id}"


# What is read


def test_every_page_is_read_and_sorted_by_instance_id(ec2, path, monkeypatch, capsys):
    monkeypatch.setattr(inventory, "PAGE", 5)  # the fewest EC2 allows
    started = [start(ec2, f"web{n}", "web") for n in range(12)]
    save(path)
    assert refresh(path) == 0
    wanted = sorted(started, key=lambda host: host.instance_id)
    assert list(inventory.load(path).hosts) == wanted
    assert capsys.readouterr().out.splitlines() == [f"+ {brief(host)}" for host in wanted]


def test_stopped_and_ended_instances_are_left_out(ec2, path):
    running, stopped, ended = (start(ec2, name, "web") for name in ("a", "b", "c"))
    ec2.stop_instances(InstanceIds=[stopped.instance_id])
    ec2.terminate_instances(InstanceIds=[ended.instance_id])
    assert refresh(path) == 0
    assert inventory.load(path).hosts == (running,)


def test_roles_are_split_at_commas_and_spaces(ec2, path):
    start(ec2, "queue1", "celery, beat,monitor  celery")
    assert refresh(path) == 0
    assert inventory.load(path).roles == ("celery", "beat", "monitor")


def test_an_instance_that_is_not_of_the_fleet_is_skipped_with_a_line(ec2, path, capsys):
    web = start(ec2, "web1", "web")
    bare, unnamed = start(ec2), start(ec2, roles="web")
    assert refresh(path) == 0
    assert inventory.load(path).hosts == (web,)
    lines = capsys.readouterr().out.splitlines()
    assert f"skipped {bare.instance_id}: it has no Name tag and no Roles tag" in lines
    assert f"skipped {unnamed.instance_id}: it has no Name tag" in lines


def test_filters_and_tag_names_are_settings(ec2, path):
    path.with_name("fabric.yml").write_text(
        "inventory: {region: eu-central-1, name_tag: Host, role_tag: Does,"
        " filters: {'tag:Environment': [production, canary], 'tag:Team': shop}}"
    )
    start(ec2, "x", "y", Host="a", Does="web", Environment="production", Team="shop")
    start(ec2, "x", "y", Host="b", Does="web", Environment="canary", Team="shop")
    start(ec2, "x", "y", Host="c", Does="web", Environment="testing", Team="shop")
    start(ec2, "x", "y", Host="d", Does="web", Environment="canary", Team="mail")
    assert refresh(path) == 0
    assert {host.name for host in inventory.load(path).hosts} == {"a", "b"}


def test_an_instance_without_public_name(ec2, path):
    network = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.7.1.0/24")["Subnet"]["SubnetId"]
    tags = [{"Key": "Name", "Value": "db1"}, {"Key": "Roles", "Value": "db"}]
    ec2.run_instances(
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    assert refresh(path) == 0
    [host] = inventory.load(path).hosts
    assert host.public_dns == ""
    assert host.private_dns.startswith("ip-10-7-1-")


# What is kept, shown and written


def test_what_was_set_by_hand_stays_and_changes_are_shown(ec2, path, capsys):
    web, db = start(ec2, "web1", "web"), start(ec2, "db1", "db")
    by_hand = {"user": "deploy", "port": 2222, "vars": {"weight": 2}}
    before = [
        inventory.Host(web.instance_id, "", web.private_dns, "old", ("web", "beat"), **by_hand),
        inventory.Host("i-gone", "", "10.1.0.1", "db1", ("db", "beat"), port=22),
    ]
    text = save(path, *before)
    assert refresh(path, "--force") == 0
    found = {host.name: host for host in inventory.load(path).hosts}
    assert vars(found["web1"]) == vars(web) | by_hand
    assert vars(found["db1"]) == vars(db) | {"port": 22}
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(
        [
            "~ old name: old → web1",
            "~ old roles: web,beat → web",
            f"~ old public_dns: - → {web.public_dns}",
            "~ db1 roles: db,beat → db",
            f"~ db1 private_dns: 10.1.0.1 → {db.private_dns}",
            f"~ db1 public_dns: - → {db.public_dns}",
            f"~ db1 instance_id: i-gone → {db.instance_id}",
        ]
    )
    assert path.with_name("servers.json.previous").read_bytes() == text
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "fabric.yml",
        "servers.json",
        "servers.json.previous",
    ]


def test_a_name_that_moved_to_another_living_instance_brings_nothing_along(ec2, path):
    first, second = start(ec2, "web2", "web"), start(ec2, "web1", "web")
    save(path, inventory.Host(first.instance_id, "", "10.1.0.1", "web1", ("web",), port=22))
    assert refresh(path) == 0
    ports = {host.instance_id: host.port for host in inventory.load(path).hosts}
    assert ports == {first.instance_id: 22, second.instance_id: None}


def test_a_second_refresh_writes_nothing(ec2, path, capsys):
    start(ec2, "web1", "web")
    refresh(path)
    before = path.stat()
    capsys.readouterr()
    assert refresh(path) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert path.stat() == before
    assert not path.with_name("servers.json.previous").exists()


def test_a_known_address_with_another_instance_is_called_out(ec2, path, capsys):
    web = start(ec2, "web2", "web")
    name = web.private_dns  # a host may be called by its address
    save(path, inventory.Host("i-gone", "", web.private_dns, name, ("web",)))
    assert refresh(path, "--force") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        f"! {web.private_dns} was i-gone, is now {web.instance_id} (web2):"
        " its host key will be another"
    )


def test_permissions_and_links_stay(ec2, path, tmp_path):
    start(ec2, "web1", "web")
    shared = tmp_path / "shared.json"
    save(shared)
    shared.chmod(0o640)
    path.symlink_to(shared)
    assert refresh(path) == 0
    assert path.is_symlink()
    assert shared.stat().st_mode & 0o777 == 0o640
    assert len(inventory.load(shared).hosts) == 1


def test_the_command_itself(ec2, path):
    start(ec2, "web1", "web")
    command = [sys.executable, ROOT / "inventory.py", "refresh", "-I", path]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd="/", timeout=60
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("+ web1 web ip-")


# What is refused; every test below must find the file as it was


@pytest.fixture
def kept(path):
    """A file of five hosts, compared at the end."""
    before = save(path, *fleet(5))
    yield path
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".servers.json.*"))


def test_an_emptied_role_needs_force(ec2, path, capsys):
    hosts = [start(ec2, f"web{n}", "web") for n in range(6)]
    before = save(path, *hosts[1:], inventory.Host("i-db", "", "10.1.0.1", "db1", ("db",)))
    assert refresh(path) == 6
    told = f"inventory: {path}: nothing written: role db would be empty; add --force if that is"
    assert capsys.readouterr().err.startswith(told)
    assert path.read_bytes() == before
    assert refresh(path, "--force") == 0
    assert set(inventory.load(path).hosts) == set(hosts)


@pytest.mark.parametrize("gone, size, code", [(1, 5, 0), (1, 4, 6), (2, 5, 6)])
def test_more_than_a_fifth_of_the_hosts_needs_force(ec2, path, capsys, gone, size, code):
    stay = [start(ec2, f"web{n}", "old") for n in range(size - gone)]
    before = save(path, *stay, *fleet(gone))
    assert refresh(path) == code
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"- {brief(host)}" for host in fleet(gone)]
    assert (f"{gone} of {size} hosts would go; add --force" in output.err) == (code == 6)
    assert (path.read_bytes() == before) == (code == 6)


def test_no_host_at_all_is_no_answer_even_with_force(ec2, kept, capsys):
    start(ec2)
    assert refresh(kept, "--force") == 5
    assert "EC2 has no running host of this fleet: nothing written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, told",
    [
        (["web 1"], "EC2: host 1 ('web 1'): name is 'web 1'; it must be up to 64 letters"),
        (["web1", "web1"], "EC2: both web1 (i-"),
    ],
)
def test_tags_that_make_no_inventory(ec2, kept, capsys, names, told):
    for name in names:
        start(ec2, name, "web")
    assert refresh(kept, "--force") == 2
    assert capsys.readouterr().err.startswith(f"inventory: {told}")


@pytest.mark.parametrize(
    "settings, told",
    [
        ("{regoin: x}", "no key 'regoin'; did you mean region? known: region, profile, filters, "),
        ("{filters: web}", "inventory.filters: write `name: value` lines, not 'web'"),
        ("{region: 5}", "inventory.region: write text, not 5"),
    ],
)
def test_settings_that_are_wrong(kept, capsys, settings, told):
    kept.with_name("fabric.yml").write_text(f"inventory: {settings}")
    assert refresh(kept) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings, told",
    [
        ("{}", "You must specify a region.: nothing written; correct `inventory:` in fabric.yml"),
        ("{region: a b}", "nothing written; correct `inventory:` in fabric.yml"),
        ("{region: x, profile: nobody}", "(nobody) could not be found: nothing written; correct "),
        ("{region: x, filters: {a: 5}}", "nothing written; correct `inventory:` in fabric.yml"),
    ],
)
def test_settings_boto3_cannot_use(kept, capsys, settings, told):
    kept.with_name("fabric.yml").write_text(f"inventory: {settings}")
    explained(kept, capsys, told)


def explained(path, capsys, told):
    """refresh exits 5 with one clear line on stderr."""
    assert refresh(path, "--force") == 5
    error = capsys.readouterr().err
    assert told in error
    assert "nothing written" in error
    assert error.count("\n") == 1


def test_no_credentials(ec2, kept, capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    explained(kept, capsys, "Unable to locate credentials: nothing written; log in to AWS again")


def test_nobody_listens(kept, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    explained(kept, capsys, "Could not connect to the endpoint URL")


def test_an_endpoint_that_is_none(kept, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    explained(kept, capsys, "Invalid endpoint: nonsense: nothing written")


# An EC2 that answers what it is told to


@pytest.fixture
def answers(monkeypatch):
    """Serves the answers put in this list, one a request, the last for ever: (status, text)."""
    prepared = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            status, text = prepared.pop(0) if len(prepared) > 1 else prepared[0]
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text) + 100 * text.endswith(CUT)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield prepared
    server.shutdown()
    thread.join()
    server.server_close()


CUT = "<!-- the connection ends here -->"
INSTANCE = (
    "<item><instancesSet><item><instanceId>i-1</instanceId><privateDnsName>a</privateDnsName>"
    "<tagSet><item><key>Name</key><value>a</value></item><item><key>Roles</key>"
    "<value>old</value></item></tagSet></item></instancesSet></item>"
)


def page(content, token="more"):
    return (
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"{content}<nextToken>{token}</nextToken></DescribeInstancesResponse>"
    )


def failure(code):
    message = f"<Code>{code}</Code><Message>Of\n{code}.</Message>"
    return f"<Response><Errors><Error>{message}</Error></Errors><RequestID>1</RequestID></Response>"


FIRST_PAGE = (200, page(f"<reservationSet>{INSTANCE}</reservationSet>"))


@pytest.mark.parametrize(
    "answer, told",
    [
        ((400, failure("RequestExpired")), "Of RequestExpired.: nothing written; log in to AWS "),
        ((401, failure("AuthFailure")), "nothing written; log in to AWS again, then run it again"),
        ((403, failure("UnauthorizedOperation")), "allow this login ec2:DescribeInstances, then"),
        ((503, failure("RequestLimitExceeded")), "nothing written; wait a minute, then run it"),
        ((500, "<html>oops</html>"), "EC2 was not read: "),
        ((200, "<html><p>Please log in to the hotel's network"), "EC2 was not read: "),
        ((200, page("", token="")), "EC2's answer is not whole, it lacks 'Reservations'"),
        ((200, page("<reservationSet>") + CUT), "EC2 was not read: "),
        ((200, ""), "EC2"),
    ],
)
@pytest.mark.parametrize("before", [[], [FIRST_PAGE]], ids=["at once", "on the second page"])
def test_answers_that_cannot_be_believed(answers, kept, capsys, answer, told, before):
    answers += [*before, answer]
    explained(kept, capsys, told)


def test_the_prepared_page_is_a_good_one(answers, path):
    answers.append((200, page(f"<reservationSet>{INSTANCE}</reservationSet>", token="")))
    assert refresh(path) == 0
    assert json.loads(path.read_text())[0]["name"] == "a"


def test_a_file_that_cannot_be_replaced(answers, kept, capsys):
    answers.append((200, page(f"<reservationSet>{INSTANCE}</reservationSet>", token="")))
    kept.with_name("servers.json.previous").mkdir()
    assert refresh(kept, "--force") == 2
    assert f"{kept}: cannot be written: Is a directory; it is as it was" in capsys.readouterr().err
