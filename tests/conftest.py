"""The repository's root on sys.path, and a real fleet for the stories, made once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))
# A shell ignores SIGINT for what it starts in the background, and so would every `fab` from here.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The fleets are on this machine: no proxy knows the way there.
urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))

FLEET = (
    ("lb1", ["nginx"]),
    ("web1", ["web"]),
    ("web2", ["web"]),
    ("queue1", ["celery"]),
    ("queue2", ["celery"]),
    ("cache1", ["memcached"]),
    ("cache2", ["memcached"]),
    ("redis1", ["redis"]),
    ("db1", ["db"]),
)


def inventory_of(hosts, network, path, **facts):
    """A servers.json at `path` for (name, roles) pairs, addresses counted up in `network`."""
    entries = [
        {
            "instance_id": f"i-{number:017x}",
            "public_dns": f"{network}.{number}",
            "private_dns": f"{network}.{number}",
            "name": name,
            "roles": roles,
            "port": 2222,
            **facts,
        }
        for number, (name, roles) in enumerate(hosts, 1)
    ]
    path.write_text(json.dumps(entries, indent=2))
    return path


class Site:
    """A git repository with the example site, and what a team changes in it."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(ROOT / "example", folder / "example",
                        ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
        shutil.rmtree(folder / "example/static", ignore_errors=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("the site")

    def git(self, *words):
        settings = ("user.name=Ann", "user.email=ann@example.org", "commit.gpgsign=false")
        options = [word for setting in settings for word in ("-c", setting)]
        return subprocess.run(["git", *options, *words], cwd=self.folder, check=True,
                              capture_output=True, text=True).stdout.strip()

    def commit(self, message):
        """Commits everything; the new revision."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def change(self, path, text, message="a change"):
        """Adds `text` to a file of the site and commits it; the new revision."""
        file = self.folder / "example" / path
        file.write_text(file.read_text() + text)
        return self.commit(message)

    def replace(self, path, old, new):
        """Changes a text in a file of the site and commits it; the new revision."""
        file = self.folder / "example" / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        return self.commit(f"{path} is changed")

    def back_to(self, revision):
        """The work tree as it was at `revision`, as a new commit."""
        self.git("checkout", "--quiet", revision, "--", ".")
        return self.commit(f"as {revision}")


class Team:
    """Somebody at a terminal: runs `fab` on one inventory."""

    def __init__(self, inventory, site=None):
        self.inventory = inventory
        self.env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        if site:
            self.env["FABRIC_DEPLOY_REPOSITORY"] = str(site.folder)

    def start(self, *words, **kwargs):
        """A `fab` in the background."""
        return subprocess.Popen(
            [BIN / "fab", "-I", self.inventory, *map(str, words)], cwd=ROOT, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            **kwargs,
        )

    def fab(self, *words, code=0):
        """What `fab` prints; it must end with `code`."""
        process = self.start(*words)
        try:
            output = process.communicate(timeout=240)[0]
        finally:
            process.kill()  # one that is late must not go on beside the next
        print(f"$ fab {' '.join(map(str, words))}\n{output}")
        assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{output}"
        return output

    def json(self, *words):
        """The rows of the last table that a task answers with --json."""
        output = self.fab("--json", *words)
        events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return [event for event in events if event["event"] == "table"][-1]["rows"]

    def current(self):
        """host → the release its `current` names."""
        return {row["host"]: row["current"] for row in self.json("check")}


def eventually(question, seconds=60):
    """Waits until the answer is true."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


class Visitors:
    """Requests through the load balancer, one after the other, while something is done."""

    def __init__(self, url):
        self.url = url
        self.count = 0
        self.failures = []

    def __enter__(self):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._browse) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def _browse(self):
        while not self.stop.is_set():
            self.count += 1
            try:
                with urllib.request.urlopen(self.url, timeout=10) as answer:
                    answer.read()
            except Exception as error:  # a torn answer too
                self.failures.append(f"{time.strftime('%T')} {error}")
            time.sleep(0.01)

    def __exit__(self, *exc):
        self.stop.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def team(site, tmp_path_factory):
    """A team whose fleet is up, set up, and has nothing deployed yet."""
    inventory = inventory_of(FLEET, "127.0.2", tmp_path_factory.mktemp("fleet") / "servers.json")
    team = Team(inventory, site)
    try:
        team.fab("sandbox_up")
        yield team
    finally:
        team.fab("sandbox_down")


def pytest_terminal_summary(terminalreporter):
    """The site's search suite as a table: what became of each case on each engine."""
    found = dict(kept for reports in terminalreporter.stats.values() for report in reports
                 for kept in getattr(report, "user_properties", ())
                 if kept[0].startswith("search on "))
    if not found:
        return
    terminalreporter.section("the site's search suite")
    engines = sorted(found)
    cases = dict.fromkeys(case for engine in engines for case in found[engine])
    wide = max(map(len, cases))
    for name, *row in [("", *(engine.split()[-1] for engine in engines)),
                       *((case, *(found[e].get(case, "-") for e in engines)) for case in cases)]:
        terminalreporter.line(f"{name:{wide}}" + "".join(f"{cell:>10}" for cell in row))
