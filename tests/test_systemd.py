"""The units for systemd, on a real one: a host of its own, booted from an overlay of this machine.

Only where root may do that, and systemd-nspawn is here.
"""

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fabfile import services
from fabfile.env import Services, env
from fabfile.services import Systemd
from tests.conftest import BIN, Site, Team, Visitors, inventory_of

NAME, NETWORK = "sd61", "10.99.61"
ADDRESS, BROKER = f"{NETWORK}.1", f"{NETWORK}.2"
PAGE = f"http://{ADDRESS}:8000/"
NEEDED = ("systemd-nspawn", "ip", "redis-server", "sshd")
SERVERS = os.environ["PATH"] + ":/usr/sbin:/sbin"

pytestmark = [
    pytest.mark.story,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(name, path=SERVERS) for name in NEEDED),
        reason="needs root and systemd-nspawn",
    ),
]


def do(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True,
                          env={**os.environ, "PATH": SERVERS}).stdout


@contextlib.contextmanager
def network():
    """A network namespace for the host, whose wire's other end is here."""
    do("ip", "netns", "add", NAME)
    try:
        do("ip", "link", "add", NAME, "type", "veth", "peer", "name", "host0", "netns", NAME)
        do("ip", "addr", "add", f"{BROKER}/24", "dev", NAME)
        do("ip", "link", "set", NAME, "up")
        inside = ("ip", "-n", NAME)
        do(*inside, "addr", "add", f"{ADDRESS}/24", "dev", "host0")
        do(*inside, "link", "set", "host0", "up")
        do(*inside, "link", "set", "lo", "up")
        yield
    finally:
        do("ip", "link", "delete", NAME)
        do("ip", "netns", "delete", NAME)


@contextlib.contextmanager
def root_of(folder):
    """An overlay of this machine's files in which only sshd is wanted, and the key may log in."""
    for name in ("root", "upper", "work"):
        (folder / name).mkdir()
    root = folder / "root"
    options = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
    do("mount", "-t", "overlay", "overlay", "-o", options, str(root))
    try:
        shutil.rmtree(root / "etc/systemd/system/multi-user.target.wants", ignore_errors=True)
        shutil.rmtree(root / "etc/systemd/system/sockets.target.wants", ignore_errors=True)
        (root / "etc/systemd/system/multi-user.target.wants").mkdir()
        (root / "etc/systemd/system/multi-user.target.wants/ssh.service").symlink_to(
            "/lib/systemd/system/ssh.service")
        (root / "etc/machine-id").write_text("")
        (root / "root/.ssh").mkdir(exist_ok=True)
        (root / "root/.ssh/authorized_keys").write_text((folder / "key.pub").read_text())
        (root / "etc/environment").write_text("UV_OFFLINE=1\nUV_LINK_MODE=symlink\n")
        shutil.copy(BIN / "uv", root / "usr/local/bin/uv")
        yield root
    finally:
        do("umount", str(root))


@contextlib.contextmanager
def booted(root):
    """The host, up until it is told to power off."""
    container = subprocess.Popen(
        ["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "-b",
         f"--machine={NAME}", f"--network-namespace-path=/run/netns/{NAME}", "--tmpfs=/tmp",
         "systemd.unit=multi-user.target"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": SERVERS},
    )
    try:
        yield
    finally:
        container.terminate()  # which it hands on as a request to halt
        container.wait(30)


@contextlib.contextmanager
def broker(folder):
    server = subprocess.Popen(
        [shutil.which("redis-server", path=SERVERS), "--bind", BROKER, "--save", "",
         "--protected-mode", "no", "--dir", folder], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait(10)


def ssh(folder, command):
    return subprocess.run(["ssh", "-F", folder / ".sandbox/ssh_config", ADDRESS, command],
                          capture_output=True, text=True, timeout=60)


def write_ssh_config(folder):
    (folder / ".sandbox").mkdir()
    key = Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (folder / ".sandbox/known_hosts").write_text(f"{ADDRESS} {key}")
    (folder / ".sandbox/ssh_config").write_text(f"""Host {ADDRESS}
    User root
    IdentityFile {folder}/key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/.sandbox/known_hosts
    StrictHostKeyChecking yes
""")


SETTINGS = """
services: {manager: systemd, folder: /etc/systemd/system}
prove: {health: %d}
"""


class SystemdTeam(Team):
    """A team whose hosts have systemd, and are not waited for long."""

    def start(self, *words, patience=15, **kwargs):
        settings = self.inventory.parent / "systemd.yml"
        settings.write_text(SETTINGS % patience)
        return super().start("-f", settings, *words, **kwargs)

    def ssh(self, command):
        return ssh(self.inventory.parent, command)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def team(site, tmp_path_factory):
    """A team whose only host is set up and has nothing deployed yet."""
    folder = tmp_path_factory.mktemp("systemd")
    do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    hosts = (("one", ["web", "celery"]), ("redis1", ["redis"]))
    team = SystemdTeam(inventory_of(hosts, NETWORK, folder / "servers.json", port=22), site)
    write_ssh_config(folder)
    (folder / ".env").write_text("SECRET_KEY=only-for-this-test\n")
    with network(), broker(folder), root_of(folder) as root, booted(root):
        deadline = time.monotonic() + 20
        while team.ssh("systemctl is-system-running").stdout.strip() != "running":
            assert time.monotonic() < deadline, "the host does not start"
            time.sleep(0.2)
        team.fab("setup")
        team.fab("put_shared", folder / ".env")
        yield team


def test_a_first_deploy_that_fails_leaves_nothing_running(team, site):
    good = site.git("rev-parse", "HEAD")
    site.change("conference/wsgi.py", """
import os
if os.path.realpath("../../current") == os.getcwd():
    raise SystemExit("fails only when live")
""")
    run = team.start("deploy", patience=2)
    output = run.communicate(timeout=120)[0]
    site.back_to(good)
    assert run.returncode == 7, output
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(PAGE, timeout=5)
    states = team.ssh("systemctl is-active web.socket web.service celery.service")
    assert states.stdout.split() == ["inactive"] * 3


def test_deploys_and_a_rollback_without_a_failed_request(team, site):
    team.fab("deploy")
    first = team.current()["one"]
    site.change("directory/templates/directory/home.html", "<p>changed</p>")
    with Visitors(PAGE) as visitors:
        team.fab("deploy")
        team.fab("rollback")
    assert visitors.failures == []
    assert visitors.count > 50
    assert {row["runs"] for row in team.json("running")} == {first}


def test_what_systemd_says_of_the_units(team):
    manager = Systemd()
    found = manager.parse_status(team.ssh(manager.status(["web", "celery", "none"])).stdout)
    assert {unit: processes[0].state for unit, processes in found.items()} == {
        "web": "active", "celery": "active", "none": "inactive"}
    runs = {row["unit"]: int(row["pid"]) for row in team.json("running")}
    assert found["celery"][0].pid == runs["celery"]
    assert found["none"][0].pid is None


def test_a_celery_restart_loses_nothing(team):
    manage = "cd conference/current && .venv/bin/python manage.py"
    batch = team.ssh(f"{manage} queue_records 20 --seconds 0.3").stdout.strip()
    team.fab("restart_celery")
    deadline = time.monotonic() + 20
    while "done 20 distinct 20" not in (said := team.ssh(f"{manage} count_records {batch}").stdout):
        assert time.monotonic() < deadline, f"{said}\n{team.ssh('journalctl -u celery').stdout}"
        time.sleep(0.5)
    assert "celery@one" in team.fab("celery_status")


def unit(command):
    return f"""{services.first_line()}
[Service]
Type=oneshot
RemainAfterExit=true
ExecStart={command}
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def systemd():
    env.services = Services(manager="systemd", folder="/etc/systemd/system")
    yield
    env.services = Services()


def test_a_unit_that_cannot_start_and_one_that_goes(team, systemd):
    bad = unit("/bin/sh -c 'echo the reason; exit 3'")
    listed = team.ssh("ls /etc/systemd/system").stdout
    units = {name: team.ssh(f"cat /etc/systemd/system/{name}").stdout
             for name in ("web.service", "web.socket", "celery.service")}
    more = units | {"bad.service": bad, "idle.service": unit("/bin/true")}
    assert team.ssh(services.install(more)).returncode == 0
    done = team.ssh(Systemd().restart("bad"))
    assert done.returncode != 0 and "the reason" in done.stderr
    assert team.ssh(Systemd().restart("idle")).returncode == 0
    done = team.ssh(services.install(units))
    assert (done.returncode, done.stderr) == (0, "")
    assert team.ssh("ls /etc/systemd/system").stdout == listed
    assert team.ssh("systemctl is-active idle.service web.service").stdout.split() == [
        "inactive", "active"]
