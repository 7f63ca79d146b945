"""The rendered configuration: its text, what nginx says to it, and a real nginx that runs it."""

import http.client
import json
import os
import shutil
import socket
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
from fabfile import nginx, templates
from fabfile.env import Deploy, Nginx, env
from fabfile.errors import Usage
from tests.conftest import ROOT, Team, inventory_of

LB, WEB1, WEB2 = "127.0.61.1", "127.0.61.2", "127.0.61.3"


def host(name, address, *roles, **vars):
    return inventory.Host(f"i-{name}", address, address, name, roles, vars=vars)


HOSTS = (
    host("lb1", LB, "nginx"),
    host("web1", WEB1, "web"),
    host("web2", WEB2, "web", nginx_weight=3),
    host("web3", "127.0.61.4", "web", nginx_down=True),
)


MANY = (HOSTS[0], *(host(f"w{n}", f"10.0.{n // 250}.{n % 250}", "web") for n in range(1000)))


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


def test_flower_is_reached_on_the_first_monitor_host():
    assert "flower" not in rendered()["site.conf"]
    monitors = (host("queue1", "127.0.61.7", "monitor"), host("queue2", "127.0.61.8", "monitor"))
    text = rendered((*HOSTS, *monitors))["site.conf"]
    assert "location /flower/ {\n        proxy_pass http://127.0.61.7:5555;\n" in text
    assert "127.0.61.8" not in text


def test_the_same_facts_give_the_same_bytes_and_others_another_fingerprint():
    def of(files):
        return json.loads(files["site.conf"].split("return 200 '")[1].split("\\n'")[0].replace(
            "$pid", "0"))["release"]

    assert rendered() == rendered()
    assert of(rendered()) != of(rendered(HOSTS[:3]))


@pytest.mark.parametrize("text", ["10.0.0.1;", "a b", "a\nb", "a}", "a'", "$host", "", "{a"])
def test_what_is_no_plain_word_is_refused(text):
    for fact in ("private_dns", "vars"):
        value = {"nginx_weight": text} if fact == "vars" else text
        with pytest.raises(Usage, match=r"nginx/site.conf.j2: line \d+: .* is not a plain word"):
            rendered((HOSTS[0], replace(HOSTS[1], **{fact: value})))
    with pytest.raises(Usage, match=r"nginx/nginx.conf.j2: line 1: .* is not a plain word"):
        rendered((replace(HOSTS[0], name=text), *HOSTS[1:]))


def test_a_thousand_hosts_render_in_a_second():
    started = time.process_time()
    rendered(MANY)
    assert time.process_time() - started < 1


def test_nginx_accepts_a_thousand_hosts():
    assert nginx.complaint(HOSTS[0], MANY) == ""


def test_nginx_accepts_what_this_machine_has_no_address_for():
    far = tuple(replace(h, private_dns=f"{h.name}.internal") for h in HOSTS)
    env.nginx = Nginx(port=80)
    assert nginx.complaint(far[0], far) == ""


def test_what_it_listens_on_here():
    """Each address stays one of its own; nothing needs root, an interface, or a short path."""
    text = "listen 80 default_server; listen [::]:80 ssl;\n listen 10.0.0.1:8080;listen unix:/r/s;"
    assert nginx.unbound(text) == (
        "listen unix:run/80 default_server; listen unix:run/_____80 ssl;\n"
        " listen unix:run/10_0_0_1_8080;listen unix:/r/s;"
    )


def test_nginx_is_asked_in_a_folder_with_a_long_name(monkeypatch, tmp_path):
    (tmp_path / ("long" * 30)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    assert nginx.complaint(HOSTS[0], HOSTS) == ""


@pytest.fixture
def fork(monkeypatch, tmp_path):
    """A function that changes a template of a copy of the templates."""
    folder = tmp_path / "templates"
    shutil.copytree(ROOT / "templates", folder)
    monkeypatch.setattr(templates, "FOLDER", folder)

    def change(name, old, new):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def test_nginx_names_what_is_wrong(fork):
    fork("nginx/nginx.conf.j2", "gzip on;", "gzipp on;")
    said = nginx.complaint(HOSTS[0], HOSTS)
    assert said.splitlines()[0].startswith(
        'nginx: [emerg] unknown directive "gzipp" in nginx/nginx.conf:')


@pytest.mark.parametrize(("text", "words"), [
    ("{% if %}", "site.conf.j2: line 2: Expected an expression, got 'end of statement block'"),
    ("{{ nobody }}", "site.conf.j2: line 2: 'nobody' is undefined"),
    ("{{ host.vars.port }}", "site.conf.j2: line 2: 'dict object' has no attribute 'port'"),
    ("{{ 1 / 0 }}", "site.conf.j2: line 2: division by zero"),
    ("{{ host.name | wurd }}", "site.conf.j2: line 2: No filter named 'wurd'."),
    ("{% include 'nginx/more.j2' %}", "site.conf.j2: line 2: 'nginx/more.j2'"),
    ("{{ hosts('web')[7].name }}", "site.conf.j2: line 2: list object has no element 7"),
    ("{% include 'nginx/mime.types.j2' %}{{ x }}", "site.conf.j2: line 2: 'x' is undefined"),
])
def test_a_template_that_cannot_be_rendered_is_one_line(fork, text, words):
    fork("nginx/site.conf.j2", "upstream site {", text)
    with pytest.raises(Usage) as stop:
        rendered()
    assert str(stop.value).startswith(f"templates/nginx/{words}")
    assert "\n" not in str(stop.value)


def test_a_template_that_is_not_text(fork, tmp_path):
    (tmp_path / "templates/nginx/odd.conf.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(Usage, match=r"nginx/odd\.conf\.j2: 'utf-8' codec can't decode"):
        rendered()


# A real nginx before two web hosts


class Backend(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/torn" and self.server.drops:
            return self.connection.close()
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
        Path(prefix, "site/current/static/a.css").write_text("body {}")
        Path(prefix, "site/current/secret").write_text("secret")
        Path(prefix).chmod(0o755)
        nginx.write(Path(prefix, "nginx"), rendered(HOSTS[:3]))
        more = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        server = subprocess.Popen(["/usr/sbin/nginx", "-p", prefix, "-c", "nginx/nginx.conf",
                                   "-e", "logs/e", "-g", more])
        while not Path(prefix, "run/nginx.pid").exists():
            assert server.poll() is None, "nginx does not start"
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
    assert {get(f"{url}/a")[2] for _ in range(40)} == {"hello"}
    counts = [len(backend.seen) for backend in backends]
    assert sum(counts) == 40 and counts[1] > counts[0] > 4  # by weight 3 to 1
    headers = backends[1].seen[-1][2]
    assert headers["Host"] == f"{LB}:8080" and headers["X-Forwarded-For"].startswith("127.")


def test_the_address_a_visitor_claims_comes_before_the_one_that_was_seen(site):
    url, backends = site
    request = urllib.request.Request(f"{url}/claims", headers={"X-Forwarded-For": "10.9.8.7"})
    urllib.request.urlopen(request, timeout=5).close()
    seen = next(headers for b in backends for _, path, headers in b.seen if path == "/claims")
    assert seen["X-Forwarded-For"].startswith("10.9.8.7, 127.")
    assert seen["X-Real-IP"].startswith("127.")


def test_what_stays_inside(site):
    url, backends = site
    assert get(f"{url}/__release__")[0] == 404
    for backend in backends:
        backend.unwell = True
    assert {get(f"{url}/healthz")[::2] for _ in range(10)} == {(503, "unwell\n")}
    assert get(f"{url}/a")[0] == 200  # whoever watches /healthz takes no host out
    for backend in backends:
        backend.unwell = False
    assert not any(path == "/__release__" for b in backends for _, path, _ in b.seen)


def own_address():
    """This machine's address towards others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        try:
            towards.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return towards.getsockname()[0]


def test_which_configuration_runs_is_told_to_this_host_alone(site):
    answer = json.loads(get(f"{site[0]}/__nginx__")[2])
    assert answer["release"] == nginx.fingerprint(HOSTS[0], HOSTS[:3]) and answer["pid"]
    elsewhere = http.client.HTTPConnection(LB, 8080, source_address=(own_address(), 0), timeout=5)
    elsewhere.request("GET", "/__nginx__")
    assert elsewhere.getresponse().status == 404
    elsewhere.close()


def test_static_files_come_from_the_release(site):
    status, headers, body = get(f"{site[0]}/static/a.0123456789ab.css")
    assert (status, body) == (200, "body {}")
    assert headers.get_all("Cache-Control") == ["public, max-age=31536000, immutable"]
    assert get(f"{site[0]}/static/a.css")[1].get_all("Cache-Control") == ["max-age=3600"]
    assert get(f"{site[0]}/static/nothing.css")[0] == 404
    for path in ("static/../secret", "static../secret", "static/%2e%2e/secret"):
        assert get(f"{site[0]}/{path}")[2] == "hello"  # a page of the site, not a file


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


def test_a_get_whose_host_hangs_up_is_asked_of_the_other(site):
    url, backends = site
    backends[1].drops = True
    assert {get(f"{url}/torn")[0] for _ in range(4)} == {200}
    backends[1].drops = False
    time.sleep(5.5)


def test_a_dead_web_host_costs_no_request(site):
    url, backends = site
    backends[1].shutdown()
    backends[1].server_close()
    assert {get(f"{url}/a")[0] for _ in range(30)} == {200}
    assert {get(f"{url}/a", data=b"not sent to the dead one")[0] for _ in range(5)} == {200}


def test_rendering_reaches_no_host(tmp_path):
    fleet = (("lb1", ["nginx"]), ("web1", ["web"]))
    team = Team(inventory_of(fleet, "127.0.62", tmp_path / "servers.json"))
    team.fab("render_nginx", "--out", tmp_path / "out", "check_nginx")
    assert "127.0.62.2:8000" in (tmp_path / "out/lb1/site.conf").read_text()
