"""Releases of the example site for tests, laid out as on a host, and real servers beside them."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "example"
LOCK = EXAMPLE / "requirements.lock"
RELEASE = "20261124083000"
ENV = "# for tests\nSECRET_KEY=not a secret\nDATABASE_PASSWORD='pass=word'\n"
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# Each process of pytest-xdist has a network of its own.
NETWORK = f"127.{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]}.31"
LB, WEB, CACHE1, CACHE2, REDIS, DB = (f"{NETWORK}.{n}" for n in (1, 2, 9, 10, 11, 12))
BROKER = f"redis://{REDIS}:6379/0"


def host(name, address, *roles):
    return {
        "name": name,
        "roles": roles,
        "private_dns": address,
        "public_dns": f"{name}.example.org",
        "instance_id": f"i-{name}",
    }


LONELY = [host("web1", WEB, "web")]
CACHED = [*LONELY, host("cache1", CACHE1, "memcached"), host("cache2", CACHE2, "memcached")]
QUEUED = [*LONELY, host("redis1", REDIS, "redis")]
WHOLE = [*CACHED[:2], QUEUED[-1]]
WORKER = ("celery", "-A", "conference", "worker", "-c", "1", "-l", "ERROR", "--without-mingle",
          "--without-gossip")


class Site:
    """A release of the site, laid out as on a host."""

    def __init__(self, root: Path, python: Path):
        self.root, self.python = root, python

    def command(self, *words):
        """A program of the site's virtualenv, started in the release."""
        program = self.python.parent / words[0]
        home = str(self.root.parent)
        environ = {"PATH": TOOLS, "HOME": home, "LANG": "C.UTF-8", "PWD": str(self.root)}
        return {"args": [program, *map(str, words[1:])], "cwd": self.root, "env": environ}

    def run(self, *words, code=0, seconds=30, **environ):
        command = self.command(*words)
        command["env"] |= environ
        done = subprocess.run(**command, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.strip() if code == 0 else done.stderr

    def manage(self, *words, code=0):
        return self.run("python", "manage.py", *words, code=code)

    def settings(self, *names):
        values = ", ".join(f"settings.{name}" for name in names)
        code = f"import json; from django.conf import settings; print(json.dumps([{values}]))"
        return json.loads(self.manage("shell", "-v0", "-c", code))

    @contextlib.contextmanager
    def served(self):
        """gunicorn on a Unix socket, as for a trial; yields the function that asks it."""
        path = self.root.parent / f"{self.root.name}.sock"
        with running(self.command("gunicorn", "--bind", f"unix:{path}", "--workers", "1")):
            wait_for(lambda: connects(socket.AF_UNIX, str(path)), "gunicorn")
            yield lambda place: ask(path, place)


@contextlib.contextmanager
def running(command):
    """A process, ended with TERM, and with KILL where that does not do."""
    process = subprocess.Popen(**command)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def server(address, port, program, *words):
    """A server of the test's own, ready to answer."""
    path = shutil.which(program) or pytest.fail(f"{program} is not installed")
    place = (address, port)
    assert not connects(socket.AF_INET, place), f"{address}:{port} is taken"
    with running({"args": [path, *words], "stdout": subprocess.DEVNULL}) as process:
        wait_for(lambda: connects(socket.AF_INET, place), program)
        yield process


@contextlib.contextmanager
def served(site):
    """gunicorn on a free port of this machine; yields the site's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(site.command("gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1")):
        wait_for(lambda: connects(socket.AF_INET, ("127.0.0.1", port)), "gunicorn")
        yield f"http://127.0.0.1:{port}"


def memcached(address):
    words = ("-u", "nobody", "-m", "8", "-l", address, "-p", "11211")
    return server(address, 11211, "memcached", *words)


def redis():
    words = ("--bind", REDIS, "--port", "6379", "--save", "", "--appendonly", "no")
    return server(REDIS, 6379, "redis-server", *words)


def connects(family, address):
    with socket.socket(family) as probe, contextlib.suppress(OSError):
        probe.connect(address)
        return True
    return False


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def ask(path, place):
    """Status and body, or what the JSON holds."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(path))
    with contextlib.closing(connection):
        connection.request("GET", place)
        answer = connection.getresponse()
        body = answer.read().decode()
    kind = answer.headers["Content-Type"]
    return answer.status, json.loads(body) if kind == "application/json" else body


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The interpreter of a virtualenv with exactly what the lock says."""
    venv = tmp_path_factory.mktemp("site") / "venv"
    uv = shutil.which("uv", path=TOOLS)
    python = venv / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    sync = [uv, "pip", "sync", "-q", "--require-hashes", "--python", python]
    subprocess.run([*sync, LOCK], check=True)
    return python


@pytest.fixture(scope="session")
def built(tmp_path_factory, python):
    """The files of an artifact: the site, what is carried, what the build made."""
    root = tmp_path_factory.mktemp("build") / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.sqlite3*", ".env", "static.*", "media")
    shutil.copytree(EXAMPLE, root, ignore=ignored)
    shutil.rmtree(root / "static", ignore_errors=True)
    shutil.copy(ROOT / "inventory.py", root)
    shutil.copy(ROOT / "servers.json", root)
    Site(root, python).manage("collectstatic", "--noinput", "-v0")
    return root


@pytest.fixture
def publish(tmp_path, built, python):
    """A function that lays out a release for a fleet, with its shared .env."""

    def publish(fleet, name=RELEASE):
        root = tmp_path / "releases" / name
        shutil.copytree(built, root)
        (root / "servers.json").write_text(json.dumps(fleet))
        shared = tmp_path / "shared" / ".env"
        shared.parent.mkdir(exist_ok=True)
        shared.write_text(ENV)
        (root / ".env").symlink_to("../../shared/.env")
        return Site(root, python)

    return publish
