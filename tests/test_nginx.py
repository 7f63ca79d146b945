"""The rendered configuration: its text, what nginx says to it, and a real nginx that runs it."""

import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import inventory
from fabfile import nginx
from fabfile.env import Deploy, Nginx, env
from fabfile.errors import Usage
from tests.conftest import Team, inventory_of

LB, WEB1, WEB2 = "127.0.61.1", "127.0.61.2", "127.0.61.3"


def host(name, address, *roles, **vars):
    return inventory.Host(f"i-{name}", address, address, name, roles, vars=vars)


HOSTS = (
    host("lb1", LB, "nginx"),
    host("web1", WEB1, "web"),
    host("web2", WEB2, "web", nginx_weight=3),
    host("web3", "127.0.61.4", "web", nginx_down=True),
)


@pytest.fixture(autouse=True)
def settings():
    env.deploy = Deploy(application="site", deploy_to="site")
    env.nginx = Nginx()


def rendered(hosts=HOSTS):
    return nginx.render(hosts[0], hosts)


def test_the_upstream_lines():
    lines = [line.strip() for line in rendered()["site.conf"].splitlines()]
    assert [line for line in lines if line.startswith("server 127")] == [
        "server 127.0.61.2:8000 max_fails=2 fail_timeout=5s;",
        "server 127.0.61.3:8000 weight=3 max_fails=2 fail_timeout=5s;",
        "server 127.0.61.4:8000 max_fails=2 fail_timeout=5s down;",
    ]
    assert "listen 127.0.61.1:8080;" in lines
    assert "root site/current;" in lines


def test_the_same_facts_give_the_same_bytes_and_others_another_fingerprint():
    def of(files):
        return json.loads(files["site.conf"].split("return 200 '")[1].split("\\n'")[0].replace(
            "$pid", "0"))["release"]

    assert rendered() == rendered()
    assert of(rendered()) != of(rendered(HOSTS[:3]))


@pytest.mark.parametrize("address", ["10.0.0.1;", "a b", "a\nb", "a}", "a'", "$host", "", "{a"])
def test_what_is_no_plain_word_is_refused(address):
    with pytest.raises(Usage, match="no plain word"):
        rendered((HOSTS[0], replace(HOSTS[1], private_dns=address)))


def test_a_thousand_hosts_render_in_a_second():
    many = (HOSTS[0], *(host(f"w{n}", f"10.0.{n // 250}.{n % 250}", "web") for n in range(1000)))
    started = time.monotonic()
    rendered(many)
    assert time.monotonic() - started < 1


def test_nginx_accepts_what_this_machine_has_no_address_for():
    far = tuple(replace(h, private_dns=f"{h.name}.internal") for h in HOSTS)
    env.nginx = Nginx(port=80)
    assert nginx.complaint(far[0], far) == ""


def test_nginx_names_what_is_wrong(monkeypatch, tmp_path):
    for name, text in rendered().items():
        (tmp_path / f"{name}.j2").write_text(text.replace("gzip on;", "gzipp on;"))
    monkeypatch.setattr(nginx.templates, "loader", nginx.FileSystemLoader(tmp_path))
    said = nginx.complaint(HOSTS[0], HOSTS)
    assert 'unknown directive "gzipp"' in said and "nginx.conf:" in said


@pytest.mark.parametrize(("text", "words"), [
    ("{% if %}", "site.conf.j2: line 1"), ("{{ nobody }}", "site.conf.j2: 'nobody' is undefined"),
])
def test_a_template_that_cannot_be_rendered_is_one_line(monkeypatch, tmp_path, text, words):
    (tmp_path / "site.conf.j2").write_text(text)
    monkeypatch.setattr(nginx.templates, "loader", nginx.FileSystemLoader(tmp_path))
    nginx.templates.cache.clear()
    with pytest.raises(Usage, match=words):
        rendered()
    nginx.templates.cache.clear()


class Backend(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        status = 503 if self.path == "/healthz" and self.server.unwell else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"10.1.2.3 is down" if status == 503 else b"hello")

    def do_POST(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.server.drops:
            return self.connection.close()  # after it has read the request
        self.do_GET()

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site():
    """A real nginx before two web hosts; (url, the two servers)."""
    env.deploy, env.nginx = Deploy(application="site", deploy_to="site"), Nginx()
    backends = [ThreadingHTTPServer((address, 8000), Backend) for address in (WEB1, WEB2)]
    for backend in backends:
        backend.seen, backend.unwell, backend.drops = [], False, False
        threading.Thread(target=backend.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="ng") as prefix:
        for name in ("run", "logs", "site/current/static"):
            Path(prefix, name).mkdir(parents=True)
        Path(prefix, "site/current/static/a.0123456789ab.css").write_text("body {}")
        Path(prefix).chmod(0o755)
        nginx.write(Path(prefix, "nginx"), rendered(HOSTS[:3]))
        more = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        server = subprocess.Popen(["/usr/sbin/nginx", "-p", prefix, "-c", "nginx/nginx.conf",
                                   "-e", "logs/e", "-g", more])
        while not Path(prefix, "run/nginx.pid").exists():
            time.sleep(0.05)
        yield f"http://{LB}:8080", backends
        server.terminate()
        server.wait(10)
    for backend in backends:
        backend.shutdown()
        backend.server_close()


def get(url, data=None):
    """(status, headers, body)."""
    try:
        with urllib.request.urlopen(url, data=data, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_requests_are_shared_and_say_where_they_come_from(site):
    url, backends = site
    assert {get(f"{url}/a")[2] for _ in range(20)} == {"hello"}
    assert all(backend.seen for backend in backends)
    headers = backends[1].seen[-1][2]
    assert headers["Host"] == f"{LB}:8080" and headers["X-Forwarded-For"].startswith("127.")


def test_what_stays_inside(site):
    url, backends = site
    assert get(f"{url}/__release__")[0] == 404
    for backend in backends:
        backend.unwell = True
    status, _, body = get(f"{url}/healthz")
    assert (status, body) == (503, "unwell\n")
    for backend in backends:
        backend.unwell = False
    assert not any(path == "/__release__" for b in backends for _, path, _ in b.seen)


def test_which_configuration_runs(site):
    answer = json.loads(get(f"{site[0]}/__nginx__")[2])
    assert answer["release"] in rendered(HOSTS[:3])["site.conf"] and answer["pid"]


def test_static_files_come_from_the_release(site):
    status, headers, body = get(f"{site[0]}/static/a.0123456789ab.css")
    assert (status, body) == (200, "body {}")
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_a_post_is_never_sent_twice(site):
    url, backends = site
    for backend in backends:
        backend.drops = True
        backend.seen.clear()
    assert get(f"{url}/order", data=b"one book")[0] == 502
    assert sum(method == "POST" for b in backends for method, _, _ in b.seen) == 1
    for backend in backends:
        backend.drops = False
    time.sleep(5.5)  # fail_timeout


def test_a_dead_web_host_costs_no_get(site):
    url, backends = site
    backends[0].shutdown()
    backends[0].server_close()
    assert {get(f"{url}/a")[0] for _ in range(30)} == {200}


def test_rendering_reaches_no_host(tmp_path):
    fleet = (("lb1", ["nginx"]), ("web1", ["web"]))
    team = Team(inventory_of(fleet, "127.0.62", tmp_path / "servers.json"))
    team.fab("render_nginx", "--out", tmp_path / "out", "check_nginx")
    assert "127.0.62.2:8000" in (tmp_path / "out/lb1/site.conf").read_text()
