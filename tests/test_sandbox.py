"""The sandbox for real: sshd, supervisord and servers of a small fleet on 127.0.41.0/24."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from fabfile import machine, processes, sandbox
from fabfile.errors import NotInstalled, Refused
from fabfile.loopback import Loopback
from inventory import load
from tests.conftest import Team, eventually, inventory_of

HOSTS = (
    ("lb1", ["nginx"]),
    ("web1", ["web"]),
    ("cache1", ["memcached"]),
    ("redis1", ["redis", "inbox"]),
    ("db1", ["db"]),
    ("bare1", []),
)
LB, WEB, CACHE, REDIS, DB, BARE = (f"127.0.41.{number}" for number in range(1, 7))
NGINX = """events {}
pid run/nginx.pid;
http {
    client_body_temp_path run/body; proxy_temp_path run/proxy; fastcgi_temp_path run/fastcgi;
    uwsgi_temp_path run/uwsgi; scgi_temp_path run/scgi;
    access_log off;
    server { listen 127.0.41.1:8080; return 200 "hello"; }
}
"""


class Sandbox(Team):
    """A team with nothing but a sandbox."""

    def __init__(self, inventory):
        super().__init__(inventory)
        self.root = inventory.parent / ".sandbox"

    def ssh(self, address, command):
        """What OpenSSH's own client gets from a host."""
        words = ["ssh", "-F", self.root / "ssh_config", "-o", "BatchMode=yes", address, command]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout

    def status(self):
        """host → its row of sandbox_status."""
        return {row["host"]: row for row in self.json("sandbox_status")}

    def home(self, name):
        return self.root / "hosts" / name

    def pid(self, name, what="sshd"):
        """The recorded process of a host."""
        return processes.recorded(self.root / "state" / name / f"{what}.pid").pid

    def programs(self, name):
        return self.status()[name]["programs"]


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A sandbox with every kind of server, up."""
    path = tmp_path_factory.mktemp("sandbox") / "servers.json"
    one = Sandbox(inventory_of(HOSTS, "127.0.41", path))
    try:
        one.fab("sandbox_up")
        yield one
    finally:
        one.fab("sandbox_down")


@pytest.fixture
def bare(tmp_path):
    """A sandbox of two hosts without roles, down."""
    path = inventory_of((("h1", []), ("h2", [])), "127.0.41", tmp_path / "servers.json")
    path.write_text(path.read_text().replace("127.0.41.", "127.0.41.10"))
    one = Sandbox(path)
    yield one
    one.fab("sandbox_down")


def say(address, port, words, until):
    """What a server answers to `words`, read up to `until`."""
    with socket.create_connection((address, port), timeout=5) as link:
        link.sendall(words)
        answer = b""
        while until not in answer:
            answer += link.recv(4096) or pytest.fail(f"closed after {answer!r}")
    return answer


# What is up


def test_each_host_is_up_and_only_those_that_need_it_have_programs(up):
    found = {name: (row["sshd"], row["programs"]) for name, row in up.status().items()}
    assert found == {
        "lb1": ("up", "nginx STOPPED"),
        "web1": ("up", ""),
        "cache1": ("up", "memcached RUNNING"),
        "redis1": ("up", "inbox RUNNING, redis RUNNING"),
        "db1": ("up", "db RUNNING"),
        "bare1": ("up", ""),
    }
    assert not (up.root / "state/bare1/supervisord.pid").exists()


def test_a_login_has_its_hosts_home_and_path(up):
    home = str(up.home("web1"))
    assert up.ssh(WEB, 'pwd; echo "$HOME"').splitlines() == [home, home]
    assert up.ssh(WEB, 'mktemp').startswith(f"{machine.resolved(up.home('web1') / 'run')}/")
    assert up.ssh(WEB, "command -v supervisorctl uv python").splitlines() == [
        str(Path(up.env["PATH"].split(":")[0], name)) for name in ("supervisorctl", "uv", "python")
    ]


def test_a_command_line_arrives_as_it_was_sent(up):
    assert up.ssh(WEB, "printf '%s|' \"a  b\" 'c$d' \"$((1 + 1))\"") == "a  b|c$d|2|"
    done = subprocess.run(["ssh", "-F", up.root / "ssh_config", WEB, "cat; exit 7"],
                          input=b"\0\xff bytes", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (7, b"\0\xff bytes")


def test_sftp_starts_in_the_home(up, tmp_path):
    (tmp_path / "sent").write_text("by sftp")
    subprocess.run(["sftp", "-q", "-F", up.root / "ssh_config", "-b", "-", WEB], check=True,
                   input=f"put {tmp_path}/sent sent", text=True, capture_output=True, timeout=30)
    assert (up.home("web1") / "sent").read_text() == "by sftp"


def test_supervisorctl_works_in_a_login(up):
    assert re.match(r"memcached +RUNNING +pid \d+", up.ssh(CACHE, "supervisorctl status"))


def test_fab_reaches_every_host(up):
    output = up.fab("-R", "web,memcached", "--", "uname -s")
    assert output.count("Linux") == 2


def test_the_servers_answer(up):
    assert say(CACHE, 11211, b"set a 0 0 1\r\n7\r\nget a\r\n", b"END") == (
        b"STORED\r\nVALUE a 0 1\r\n7\r\nEND\r\n"
    )
    for port, policy in ((6379, b"noeviction"), (6380, b"allkeys-lru")):
        assert policy in say(REDIS, port, b"CONFIG GET maxmemory-policy\r\n", policy)


def psql(password, statement):
    words = ["psql", "-h", DB, "-U", "conference", "-d", "conference", "-Atc", statement]
    environ = {**os.environ, "PGPASSWORD": password}
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=30)


def test_the_database_takes_the_password_of_the_env_file_and_no_other(up):
    file = up.root / "shared/.env"
    assert file.stat().st_mode & 0o777 == 0o600
    password = dict(line.split("=", 1) for line in file.read_text().split())["DATABASE_PASSWORD"]
    made = psql(password, "create table made (n int); select current_user")
    assert made.stdout.split() == ["CREATE", "TABLE", "conference"], made.stderr
    assert "password authentication failed" in psql("wrong", "select 1").stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give servers to another user")
@pytest.mark.parametrize(("name", "program"), [("cache1", "memcached"), ("db1", "db")])
def test_root_gives_servers_to_an_unprivileged_user(up, name, program):
    pid = int(re.search(r"pid (\d+)", up.ssh(load(up.inventory).find(name).private_dns,
                                             f"supervisorctl status {program}"))[1])
    assert Path(f"/proc/{pid}").stat().st_uid == machine.servers_user().pw_uid != 0


# What comes back


def test_a_second_up_changes_nothing(up):
    def pids():
        return {path: path.read_text() for path in up.root.glob("state/*/*.pid")}

    before = pids()
    secret = (up.root / "shared/.env").read_text()
    up.fab("sandbox_up")
    assert pids() == before
    assert (up.root / "shared/.env").read_text() == secret


def test_a_killed_server_is_brought_back(up):
    def pid():
        return int(up.ssh(CACHE, "supervisorctl pid memcached"))

    killed = pid()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: pid() not in (0, killed) and "RUNNING" in up.programs("cache1"))
    assert b"END" in say(CACHE, 11211, b"get a\r\n", b"END")


def test_a_stopped_server_is_started_by_the_next_up(up):
    up.ssh(CACHE, "supervisorctl stop memcached")
    assert up.programs("cache1") == "memcached STOPPED"
    up.fab("-H", "cache1", "sandbox_up")
    assert up.programs("cache1") == "memcached RUNNING"


def test_nginx_starts_once_it_has_a_configuration(up):
    folder = up.home("lb1") / "nginx/releases/20260101000000"
    folder.mkdir(parents=True)
    (folder / "nginx.conf").write_text(NGINX)
    (up.home("lb1") / "nginx/current").symlink_to("releases/20260101000000")
    up.fab("-R", "nginx", "sandbox_up")
    assert urllib.request.urlopen(f"http://{LB}:8080/", timeout=5).read() == b"hello"


@pytest.mark.parametrize("killed", ["sshd", "supervisord"])
def test_what_was_killed_is_seen_and_started_again(up, killed):
    os.kill(up.pid("db1", killed), signal.SIGKILL)
    eventually(lambda: "down" in json.dumps(up.status()["db1"]))
    up.fab("-H", "db1", "sandbox_up")
    assert (up.status()["db1"]["sshd"], up.programs("db1")) == ("up", "db RUNNING")


def test_a_role_added_to_servers_json_is_started(up):
    text = up.inventory.read_text()
    hosts = [(name, ["web", "memcached"] if name == "web1" else roles) for name, roles in HOSTS]
    try:
        inventory_of(hosts, "127.0.41", up.inventory)
        up.fab("-H", "web1", "sandbox_up")
        assert up.programs("web1") == "memcached RUNNING"
    finally:
        up.inventory.write_text(text)


def test_a_changed_port_moves_sshd(bare):
    bare.fab("sandbox_up")
    bare.inventory.write_text(bare.inventory.read_text().replace("2222", "2223"))
    bare.fab("sandbox_up")
    assert bare.ssh("127.0.41.101", "echo moved") == "moved\n"
    assert not machine.answers("127.0.41.101", 2222)


def test_up_works_after_a_kill_at_any_moment(bare):
    for made in ("key", "state/h1/host_key", "state/h2/sshd_config", "state/h1/sshd.pid"):
        process = bare.start("sandbox_up")
        processes.wait_for((bare.root / made).exists, 20)
        process.kill()
        process.communicate()
        bare.fab("sandbox_up")
        assert bare.ssh("127.0.41.101", "echo here") == "here\n"
        bare.fab("sandbox_down")
        assert not machine.answers("127.0.41.101", 2222)


# What is refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"private_dns": "10.0.0.9"}, "h1: 10.0.0.9 is not a loopback address"),
        ({"private_dns": "localhost"}, "h1: localhost is not a loopback address"),
        ({"user": "somebody"}, "h1: somebody cannot log in to a sandbox started by"),
    ],
)
def test_hosts_that_cannot_be_started_here_are_refused(bare, change, reason):
    entries = json.loads(bare.inventory.read_text())
    entries[0] |= change
    bare.inventory.write_text(json.dumps(entries))
    assert reason in bare.fab("sandbox_up", code=6)
    assert not bare.root.exists()


def test_a_port_in_use_names_its_holder(bare):
    with socket.create_server(("127.0.41.102", 2222)):
        output = bare.fab("sandbox_up", code=6)
    assert f"h2: 127.0.41.102:2222 is in use by process {os.getpid()} (" in output
    assert bare.ssh("127.0.41.101", "echo the other is up") == "the other is up\n"


def test_a_second_sandbox_up_at_once_is_refused(bare):
    holding = os.open(bare.inventory.parent, os.O_RDONLY)
    fcntl.flock(holding, fcntl.LOCK_EX)
    assert "another sandbox_up or sandbox_down is at work" in bare.fab("sandbox_up", code=4)
    os.close(holding)


def test_what_does_not_come_up_shows_the_end_of_its_log(bare):
    entries = json.loads(bare.inventory.read_text())
    entries[0]["vars"] = {"max_startups": "plenty"}
    bare.inventory.write_text(json.dumps(entries))
    output = bare.fab("sandbox_up", code=1)
    assert "h1: sshd on 127.0.41.101 did not come up" in output
    assert "MaxStartups" in output


def test_missing_programs_are_all_named_with_one_line_to_install_them(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(machine, "SYSTEM_PATH", "/nowhere")
    monkeypatch.setattr(machine, "POSTGRES", "/nowhere")
    with pytest.raises(NotInstalled) as stop:
        machine.check_programs({"web", "db", "memcached"})
    assert str(stop.value) == (
        "the sandbox needs sshd, ssh-keygen, memcached, postgres: "
        "sudo apt-get install -y openssh-server openssh-client memcached postgresql"
    )


def test_a_path_that_configuration_files_cannot_hold_is_refused(tmp_path):
    with pytest.raises(Refused, match="move it to a path without '%'"):
        sandbox.check(tmp_path / "100%/.sandbox", ())


def test_dry_touches_nothing(bare):
    assert "h1 | # start sshd and the servers of its roles" in bare.fab("sandbox_up", "--dry")
    assert not bare.root.exists()


# Sizes and places


def test_32_bare_hosts_come_up_side_by_side(tmp_path):
    hosts = [(f"h{number}", []) for number in range(32)]
    path = inventory_of(hosts, "127.0.41", tmp_path / "servers.json")
    path.write_text(path.read_text().replace("127.0.41.", "127.0.41.2"))  # .21 … .232
    one = Sandbox(path)
    try:
        started = time.monotonic()
        output = one.fab("sandbox_up")
        assert time.monotonic() - started < 15
        assert "32 hosts ok" in output
    finally:
        one.fab("sandbox_down")


def test_a_checkout_far_down_works(tmp_path):
    folder = tmp_path / "a b" / ("long" * 30)
    folder.mkdir(parents=True)
    path = inventory_of((("cache9", ["memcached"]), ("db9", ["db"]), ("redis9", ["redis"])),
                        "127.0.41", folder / "servers.json")
    path.write_text(path.read_text().replace("127.0.41.", "127.0.41.9"))
    one = Sandbox(path)
    try:
        one.fab("sandbox_up")
        links = [link for link in one.root.glob("hosts/*/*") if link.is_symlink()]
        elsewhere = [Path(os.readlink(link)) for link in links]
        assert {link.name for link in links} >= {"run"}
        assert "RUNNING" in one.ssh("127.0.41.91", "supervisorctl status")
    finally:
        one.fab("sandbox_down")
    assert not [folder for folder in elsewhere if folder.exists()]


# What is left


def test_down_leaves_no_process_and_no_file(bare):
    bare.fab("sandbox_up")
    bare.ssh("127.0.41.101", "setsid sleep 987 >/dev/null 2>&1 & setsid -f sleep 988 >&- 2>&-")
    session = subprocess.Popen(["ssh", "-F", bare.root / "ssh_config", "127.0.41.101", "sleep 989"],
                               stderr=subprocess.DEVNULL)
    mark = Loopback(bare.root, "h1").mark
    eventually(lambda: len(processes.family([], mark)) == 3)
    bare.fab("sandbox_down")
    assert session.wait(10) != 0
    assert not processes.family([], mark)
    assert os.listdir(bare.inventory.parent) == ["servers.json"]


def test_down_of_one_host_leaves_the_others(bare):
    bare.fab("sandbox_up")
    bare.fab("-H", "h1", "sandbox_down")
    assert bare.status()["h1"]["sshd"] == "down"
    assert bare.ssh("127.0.41.102", "echo here") == "here\n"


def test_down_ends_a_host_that_servers_json_has_no_more(bare):
    bare.fab("sandbox_up")
    bare.inventory.write_text(bare.inventory.read_text().replace('"h2"', '"renamed"'))
    bare.fab("sandbox_down")
    assert not machine.answers("127.0.41.102", 2222)
    assert not bare.root.exists()


def test_down_without_a_sandbox_says_so(bare):
    assert "no sandbox is up beside" in bare.fab("sandbox_down")


# Processes


@pytest.fixture
def stranger():
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def born(pid):
    return int(processes.read_stat(pid)[processes.BIRTH])


@pytest.mark.parametrize(
    ("boot", "later"), [("another-boot", 0), (None, 1)], ids=["after a reboot", "recycled"]
)
def test_a_strangers_process_with_a_recorded_pid_is_left_alone(stranger, boot, later):
    record = processes.Process(
        stranger.pid, born(stranger.pid) - later, boot or processes.boot_id()
    )
    assert not record.alive()
    record.send(signal.SIGKILL)
    assert processes.family([record]) == set()
    assert processes.end([record]) == []
    assert stranger.poll() is None


def test_a_started_process_is_recorded_before_it_becomes_the_program(tmp_path):
    record, log = tmp_path / "record", tmp_path / "log"
    processes.start(["sh", "-c", "cat $0; sleep 60 & sleep 60", record], record=record, log=log,
                    env=os.environ, cwd=tmp_path)
    eventually(lambda: log.exists() and log.read_text())
    assert log.read_text() == record.read_text()
    leader = processes.recorded(record)
    assert leader.alive()
    eventually(lambda: len(processes.family([leader])) == 3)
    family = processes.family([leader])
    leader.send(signal.SIGKILL)
    eventually(lambda: not leader.alive())
    assert processes.family([leader]) == family - {leader}  # its survivors are still known
    assert processes.end([leader]) == []
    assert not [process for process in family if process.alive()]


def test_what_does_not_listen_to_term_is_killed(tmp_path):
    record = tmp_path / "record"
    processes.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
                    record=record, log=tmp_path / "log", env=os.environ, cwd=tmp_path)
    eventually(lambda: "ready" in (tmp_path / "log").read_text())
    leader = processes.recorded(record)
    assert processes.end([leader], patience=0.2) == []
    assert not leader.alive()


@pytest.mark.parametrize("text", ["", "12", "x y z", "1 boot S 1"])
def test_a_torn_record_is_none(tmp_path, text):
    (tmp_path / "record").write_text(text)
    assert processes.recorded(tmp_path / "record") is None


def test_a_wildcard_listener_holds_every_address():
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert str(os.getpid()) in processes.holder("127.0.41.77", port)
    assert processes.holder("127.0.41.77", port) is None
