"""deploy_nginx from a fork of this repository, to a host with a real nginx and its visitors."""

import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import BIN, ROOT, Team, Visitors, inventory_of

NETWORK = "127.0.64"
FLEET = (("lb1", ["nginx"]), ("web1", ["web"]), ("web2", ["web"]))
PAGE = f"http://{NETWORK}.1:8080/"
pytestmark = pytest.mark.story


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, *words):
        pass


class Fork(Team):
    """A team with a copy of the repository, whose templates are its own."""

    def __init__(self, folder, inventory):
        super().__init__(inventory)
        self.folder = folder
        for name in ("fabfile", "templates", "sandbox"):
            shutil.copytree(ROOT / name, folder / name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "inventory.py", folder)
        settings = (ROOT / "fabric.yml").read_text().replace("lease: 60", "lease: 8")
        (folder / "fabric.yml").write_text(f"{settings}\nprove: {{health: 3}}\n")

    def start(self, *words):
        return subprocess.Popen(
            [BIN / "fab", "-I", self.inventory, *map(str, words)], cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def template(self, old, new):
        """Changes the site's template; a function that changes it back."""
        path = self.folder / "templates/nginx/site.conf.j2"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return lambda: path.write_text(text)

    def configuration(self):
        """The one that nginx answers with, and the one that is on the host."""
        with urllib.request.urlopen(PAGE + "__nginx__", timeout=5) as answer:
            running = answer.read().decode().split('"')[3]
        home = self.inventory.parent / ".sandbox/hosts/lb1"
        return running, running in (home / "nginx/current/site.conf").read_text()


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """A fork whose load balancer is up before two web hosts, and has its configuration."""
    folder = tmp_path_factory.mktemp("fork")
    servers = [ThreadingHTTPServer((f"{NETWORK}.{n}", 8000), Page) for n in (2, 3)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    fork = Fork(folder, inventory_of(FLEET, NETWORK, folder / "servers.json"))
    try:
        fork.fab("-R", "nginx", "sandbox_up")
        yield fork
    finally:
        fork.fab("sandbox_down")
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def change(fork):
    """Changes the template for one test."""
    undo = []
    yield lambda old, new: undo.append(fork.template(old, new))
    for back in undo:
        back()


def test_the_first_configuration_that_fails_leaves_nginx_as_it_was(fork, change):
    change('"release": "{{ fingerprint }}"', '"release": "another"')
    output = fork.fab("deploy_nginx", code=7)
    assert "every host is back on the release it had" in output
    with socket.socket() as visitor:
        assert visitor.connect_ex((f"{NETWORK}.1", 8080)) != 0
    (row,) = fork.json("-R", "nginx", "running")
    assert [row[key] for key in ("unit", "runs", "current", "")] == ["nginx", "-", "-", "-"]


def test_a_configuration_is_switched_without_a_failed_request(fork, change):
    fork.fab("deploy_nginx")
    before, _ = fork.configuration()
    change("max_fails=2", "max_fails=3")
    with Visitors(PAGE) as visitors:
        fork.fab("deploy_nginx")
    after, is_current = fork.configuration()
    assert after != before and is_current
    assert visitors.failures == [] and visitors.count > 20


def test_an_nginx_that_runs_another_configuration_than_current_is_a_difference(fork):
    link = fork.inventory.parent / ".sandbox/hosts/lb1/nginx/current"
    live, switched = link.readlink(), link.lstat().st_mtime
    first = min(link.parent.glob("releases/2*"))
    link.unlink()
    link.symlink_to(f"releases/{first.name}")
    output = fork.fab("-R", "nginx", "running", code=1)
    link.unlink()
    link.symlink_to(live)
    os.utime(link, (switched, switched), follow_symlinks=False)
    assert re.search(rf"lb1 +nginx +\d+ +{live.name} +{first.name} .* NOT current", output)
    assert {row["runs"] for row in fork.json("-R", "nginx", "running")} == {live.name}


def test_what_only_the_host_finds_out_is_never_switched_to(fork, change):
    before = fork.configuration()
    bogus = '{% if host.private_dns != "127.0.0.1" %}bogus;{% endif %}'
    change("upstream site {", f"{bogus}\nupstream site {{")
    fork.fab("check_nginx")
    output = fork.fab("deploy_nginx", code=1)
    assert "lb1: " in output and 'unknown directive "bogus"' in output
    assert fork.configuration() == before


def test_a_template_that_cannot_be_rendered_reaches_no_host(fork, change):
    change("upstream site {", "{{ nobody }}")
    output = fork.fab("deploy_nginx", code=2)
    assert output == "fab: templates/nginx/site.conf.j2: line 2: 'nobody' is undefined\n"


def test_a_reload_that_nginx_refuses_in_silence_is_found_out(fork, change):
    """`nginx -t` minds no port that is in use; the running nginx, told to take it, does."""
    before = fork.configuration()
    change("upstream site {", f"server {{ listen {NETWORK}.1:8081; }}\nupstream site {{")
    with socket.create_server((f"{NETWORK}.1", 8081)), Visitors(PAGE) as visitors:
        output = fork.fab("deploy_nginx", code=7)
    assert "every host is back on the release it had" in output
    assert fork.configuration() == before and before[1]
    assert visitors.failures == []


def test_after_a_run_that_is_killed_the_host_goes_back_by_itself(fork, change):
    before = fork.configuration()
    change('"release": "{{ fingerprint }}"', '"release": "another"')
    run = fork.start("deploy_nginx")
    for line in run.stdout:
        if line.startswith("publish"):
            break
    run.kill()
    run.communicate()
    deadline = time.monotonic() + 20
    while fork.configuration() != before:
        assert time.monotonic() < deadline, fork.configuration()
        time.sleep(0.3)
