"""The docs say what is there: every task, every setting, every exit code."""

import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from fabric.tasks import Task

import fabfile
from fabfile.env import SECTIONS, Unit
from fabfile.errors import BY_CODE
from tests.conftest import BIN, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "example/README.md"]
TASKS = {name for name, value in vars(fabfile).items() if isinstance(value, Task)}
TEXT = {page: page.read_text() for page in PAGES}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_is_documented(task):
    assert any(re.search(rf"\b{task}\b", text) for text in TEXT.values())


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_a_one_line_help(task):
    first, _, rest = getattr(fabfile, task).__doc__.partition("\n")
    assert 10 < len(first) <= 100 and first.endswith((".", "?"))
    assert not rest.strip() or rest.startswith("\n")


def test_every_setting_is_documented():
    text = TEXT[ROOT / "docs/settings.md"]
    for section, kind in {**SECTIONS, "units": Unit}.items():
        part = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.M | re.S)
        assert part, section
        for item in fields(kind):
            assert f"`{item.name}`" in part[1], f"{section}.{item.name}"


def test_no_setting_is_invented():
    text = TEXT[ROOT / "docs/settings.md"]
    for section, kind in {**SECTIONS, "units": Unit}.items():
        part = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
        named = {name for row in re.findall(r"^\| (`.*?) \|", part, re.M)
                 for name in re.findall(r"`(\w+)`", row)}
        assert named == {item.name for item in fields(kind)}, section


def test_the_exit_codes_are_those_of_the_code():
    rows = re.findall(r"^\| (\d+) \| (\w+)", TEXT[ROOT / "docs/exit-codes.md"], re.M)
    assert {int(code): name for code, name in rows} == {
        code: kind.__name__ for code, kind in BY_CODE.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT[page]):
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tasks_that_commands_name_exist(page):
    code = re.findall(r"`(fab [^`\n]+)`|^ {4}(?:\$ )?(fab .*)$", TEXT[page], re.M)
    for command in (inline or block for inline, block in code):
        command = re.split(r" -- |#|  +|…|[;|>&]", command)[0]
        words = command.replace("`", "").split()[1:]
        named = [w.strip(",.") for w in words if re.fullmatch(r"[a-z]+(_[a-z]+)*,?", w)]
        tasks = [w for w in named if "_" in w or w in TASKS]
        assert set(tasks) <= TASKS, command


def test_every_environment_of_the_readme_is_there():
    for name in ("bin/demo", "bin/test", "servers.json", "fabric.yml", "templates"):
        assert (ROOT / name).exists()


def shown():
    """Every `fab` command that stands in an indented block of a page, without its comment."""
    for text in TEXT.values():
        for command in re.findall(r"^ {4}(?:\$ )?(fab .*)$", text, re.M):
            if "…" not in command and ", fab" not in command:
                yield re.split(r" {2,}|#", command)[0].strip()


NEEDS = ("sandbox_", "trust_hosts", "-f ")  # what --dry has nothing to show for


@pytest.mark.parametrize("command", sorted(set(shown())))
def test_the_commands_shown_run(command, tmp_path):
    if any(word in command for word in NEEDS):
        pytest.skip("shown elsewhere to run")
    for path in re.findall(r"\bsecrets/\S+", command):
        (tmp_path / Path(path).name).write_text("SECRET_KEY=x")
        command = command.replace(path, str(tmp_path / Path(path).name))
    words = shlex.split(command)
    done = subprocess.run([BIN / "fab", "--dry", *words[1:]], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
