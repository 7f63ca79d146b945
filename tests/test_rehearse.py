"""`fab rehearse`: the quick set of faults on real fleets, and that it finds out a broken engine."""

import re
import subprocess
from types import SimpleNamespace

import pytest

from fabfile import faults, stepping
from fabfile.errors import Failed, Usage
from fabfile.rehearse import Cell, choose, few, judged
from inventory import Host
from tests.conftest import FLEET, ROOT, Team, inventory_of


@pytest.mark.story
@pytest.mark.timeout(1200)
def test_the_quick_set_is_survived(tmp_path):
    run = Team(inventory_of(FLEET, "127.0.111", tmp_path / "servers.json")).start(
        "rehearse", "--quick")
    output = run.communicate(timeout=900)[0]
    assert run.returncode == 0, output
    count = sum(len(fault.quick) for fault in faults.FAULTS.values())
    assert re.search(rf"^\d+ of {count} survived", output, re.M) or "left out" in output


@pytest.mark.parametrize(("verb", "right", "wrong"), [
    ("publish", '{ [ "$prepared" = "$1" ] || prepare "$1"; } && mv -T ".current.$$" current',
     'rm -f current && ln -s "releases/$1" current'),
    ("revert", "    rm -f state/pending\n    sync state\n    set --", "    set --"),
    ("lock", 'switch_to "$from" || die 8', 'rm -f state/pending; switch_to "$from" || die 8'),
])
def test_a_script_that_loses_something_is_found_out(verb, right, wrong, tmp_path):
    text = stepping.SCRIPT.read_text()
    assert right in text
    broken = tmp_path / "release.sh"
    broken.write_text(text.replace(right, wrong))
    with pytest.raises(Failed, match=f"{verb}"):
        stepping.kill_everywhere(verb, broken)


def test_every_fault_is_in_the_docs():
    text = (ROOT / "docs/faults.md").read_text()
    for fault in faults.FAULTS.values():
        assert f"- `{fault.name}`: {fault.what}" in text
        row = re.search(rf"^\| {fault.name} \|(.*)\|$", text, re.M)
        assert row, fault.name
        cells = [cell.strip() for cell in row[1].split("|")]
        assert len([cell for cell in cells if cell]) == len(fault.codes), fault.name


def test_the_table_of_the_docs_has_no_loss():
    assert "LOST |" not in (ROOT / "docs/faults.md").read_text()


def test_what_is_chosen():
    everything = list(choose("", quick=False))
    missing = set(faults.FAULTS.values()) - {fault for fault, _ in everything}
    assert [fault.name for fault in missing] == ["two_deploys_fifty_times"]
    assert len(list(choose("two_deploys_fifty_times", quick=False))) == 1
    quick = list(choose("", quick=True))
    assert set(quick) < set(everything)
    named = list(choose("host_dead, two_runs_at_once", quick=False))
    assert [step for _, step in named] == ["stage", "publish", "prove", "commit", "start"]
    with pytest.raises(Usage, match="no fault host_ded; did you mean host_dead"):
        list(choose("host_ded", quick=False))


@pytest.mark.parametrize(("step", "code", "text", "has", "found"), [
    ("prove", 7, "\nfab: every host is back", ("1", "1"), []),
    ("prove", 0, "", ("2", "2"), ["exit code 0"]),
    ("prove", 7, "\nfab: every host is back", ("1", "2"), ["not all is as before"]),
    ("prove", 7, "\nTraceback", ("1", "1"), ["it does not say every host is back"]),
    ("prove", 7, "\nfab: every host is back", ("1", "bad"), ["not all is", "not a good release"]),
])
def test_what_a_run_may_not_do(step, code, text, has, found):
    hosts = [Host(f"i-{n}", "", f"10.0.0.{n}", f"web{n}", ("web",)) for n in (1, 2)]
    run = SimpleNamespace(code=code, text=text, before=dict.fromkeys(hosts, "1"))
    cell = Cell(faults.FAULTS["release_that_fails_once_live"], step)
    wrong = list(judged(cell, run, dict(zip(hosts, has, strict=True)), {"1", "2"}))
    assert len([text for text in wrong if any(part in text for part in found)]) >= len(found)
    assert bool(wrong) == bool(found)


def test_every_role_is_there_as_long_as_there_is_room():
    def host(name, *roles):
        return Host(f"i-{name}", "", f"10.0.0.{name}", name, roles)

    hosts = [host("1", "web"), host("2", "web"), host("3", "web"), host("4", "celery")]
    assert [h.name for h in few(hosts, 3)] == ["1", "2", "4"]
    assert few(hosts, 9) == hosts


def test_dry_names_what_it_would_try(tmp_path):
    inventory = inventory_of(FLEET, "127.0.111", tmp_path / "servers.json")
    output = Team(inventory).fab("--dry", "rehearse", "--faults", "host_dead")
    assert output.splitlines()[0] == "# host_dead at stage"


def test_the_stand_in_needs_nothing_but_python():
    done = subprocess.run(["sh", "-n", ROOT / "sandbox/rehearsal/session.j2"], check=False)
    assert done.returncode == 0
