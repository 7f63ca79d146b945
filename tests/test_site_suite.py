"""The site's own tests, in a virtualenv with what its lock says and hypothesis."""

import shutil
import subprocess
from importlib.metadata import version

import pytest

from tests.released import EXAMPLE, TOOLS, Site

pytest_plugins = ["tests.released"]

SUITE = sorted(path.stem for path in (EXAMPLE / "tests").glob("test_*.py"))


@pytest.fixture(scope="session")
def tested(python, built):
    """The built site, and an interpreter that also has hypothesis."""
    uv = shutil.which("uv", path=TOOLS)
    words = ["pip", "install", "-q", "--python", python, f"hypothesis=={version('hypothesis')}"]
    subprocess.run([uv, *words], check=True)
    return Site(built, python)


@pytest.mark.parametrize("module", SUITE)
def test_the_sites_own(tested, module):
    tested.run("python", "manage.py", "test", f"tests.{module}", seconds=300)
