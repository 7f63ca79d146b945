"""The shape of the code: who may import whom, and the single owners."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

FABFILE = ROOT / "fabfile"
ROWS = (
    {"errors", "files", "shell", "run", "reply", "visitors"},
    {"env", "schema"},
    {"table", "ssh", "gate", "processes", "delta", "templates"},
    {"progress", "remote", "machine"},
    {"live"},
    {"perhost"},
    {"fleet"},
    {"launcher"},
    {"artifact", "release", "services", "prove", "loopback", "cores", "corpus"},
    {"wheels"},
    {"application", "lock", "resume", "stage", "switch", "watch", "solr_hosts", "nginx_proof",
     "faults", "replica", "stepping"},
    {"rebuild", "faults_of_crowds", "faults_of_hosts", "faults_of_runs", "rehearsal"},
    {"adopt", "deploy", "hosts", "reports", "running", "nginx", "cache", "celery", "sandbox",
     "solr", "solr_reports"},
    {"promote", "rehearse"},
    {"cli"},
)
APART = ("__init__", "probe", "probe_celery", "probe_solr")
ROW = {module: number for number, row in enumerate(ROWS) for module in row}
MODULES = sorted(p.stem for p in FABFILE.glob("*.py") if p.stem not in APART)


def imports(module):
    """The modules of ours that a module imports."""
    tree = ast.parse((FABFILE / f"{module}.py").read_text())
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and statement.level == 1:
            yield from [statement.module] if statement.module else [n.name for n in statement.names]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_rows_above_it(module):
    for other in imports(module):
        assert ROW[other] < ROW[module], f"{module} imports {other}"


@pytest.mark.parametrize(
    ("pattern", "owner"),
    [
        (r"\bshlex\b", "shell.py"),
        (r"fabric\.main", "cli.py"),
        (r"\bparamiko\b", "ssh.py"),
        (r"(?<![.\w])print\(", "progress.py"),
        (r"rich\.table", "table.py"),
        (r"rich\.progress", "live.py"),
        (r"\"git\"", "artifact.py"),
    ],
)
def test_single_owners(pattern, owner):
    users = {p.name for p in FABFILE.glob("*.py") if re.search(pattern, p.read_text())}
    on_hosts = {"probe.py", "probe_celery.py", "probe_solr.py"}  # programs of their own
    assert users - on_hosts <= {owner}


def test_only_the_sandbox_knows_of_it():
    for path in FABFILE.glob("*.py"):
        if path.stem not in ("sandbox", "loopback", "launcher", "machine", "processes",
                             "rehearsal", "replica", "__init__"):
            assert "sandbox" not in path.read_text(), path


def test_the_inventory_imports_nothing_of_ours():
    assert "fabfile" not in Path(ROOT / "inventory.py").read_text()


def test_no_module_is_named_after_the_standard_librarys():
    import sys

    assert not set(MODULES) & sys.stdlib_module_names
