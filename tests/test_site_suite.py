"""The site's own tests, in a virtualenv with what its lock says and hypothesis."""

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.released import BROKER, EXAMPLE, TOOLS, Site, redis

pytest_plugins = ["tests.released"]

SUITE = sorted(path.stem for path in (EXAMPLE / "tests").glob("test_*.py")
               if path.stem != "test_search")


@pytest.fixture(scope="session")
def tested(python, built):
    """The built site, and an interpreter that also has hypothesis."""
    uv = shutil.which("uv", path=TOOLS)
    words = ["pip", "install", "-q", "--python", python, f"hypothesis=={version('hypothesis')}"]
    subprocess.run([uv, *words], check=True)
    return Site(built, python)


def xapian(python):
    """Debian's bindings in the site's virtualenv, as the site's README says."""
    found = Path("/usr/lib/python3/dist-packages/xapian")
    if not found.exists():
        pytest.skip("python3-xapian is not installed")
    place = next(python.parent.parent.glob("lib/python3.*/site-packages")) / "xapian"
    if not place.exists():
        place.symlink_to(found)


CASE = re.compile(r"^test_(\w+) \(.*?\) \.\.\. (.*?)(?=^test_\w+ \(|^-{9}|\Z)", re.M | re.S)


def search_suite(site, url, keep):
    """Runs the cases on an engine; what became of each is kept for the table of all engines."""
    command = site.command("python", "manage.py", "test", "tests.test_search", "-v2")
    command["env"]["SEARCH_URL"] = url
    done = subprocess.run(**command, capture_output=True, text=True, timeout=300)
    cases = {name.replace("_", " "): said.split()[-1] for name, said in CASE.findall(done.stderr)}
    rate = re.search(r"^(\w+) indexed .* ([\d,]+/s)$", done.stdout, re.M)
    if rate:
        keep(f"search on {rate[1]}", cases | {"rows indexed": rate[2]})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("engine", ["whoosh", "xapian"])
def test_the_search_on(tested, engine, record_property):
    if engine == "xapian":
        xapian(tested.python)
    search_suite(tested, f"{engine}:", record_property)


def test_the_stream_on_redis(tested):
    words = ("python", "manage.py", "test", "tests.test_stream")
    with redis():
        tested.run(*words, seconds=300, INBOX_URL=BROKER)


@pytest.mark.parametrize("module", SUITE)
def test_the_sites_own(tested, module):
    tested.run("python", "manage.py", "test", f"tests.{module}", seconds=300)
