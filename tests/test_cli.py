"""The command line, as somebody meets it who misspells, mixes and interrupts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack

import pytest
from invoke import Exit

from fabfile import cli
from tests.conftest import BIN, FLEET, ROOT, Team, inventory_of

NOWHERE = ROOT / "servers.json"  # the demo fleet: nothing here gets so far as to connect


def fab(*words, code=0, **kwargs):
    """A `fab` that ends with `code`: its output and its errors, which are no traceback."""
    kwargs = {"cwd": ROOT, "timeout": 60, "stdin": subprocess.DEVNULL, **kwargs}
    done = subprocess.run([BIN / "fab", *map(str, words)], capture_output=True, text=True, **kwargs)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("chekc", "no task chekc; did you mean check?"),
        ("check --jsno", "no flag --jsno; did you mean --json?"),
        ("--help chekc", "no task chekc; did you mean check?"),
        ("-R wbe check", "did you mean web?"),
        ("-H wbe1 check", "did you mean web1?"),
        ("-H= check", "--hosts is given, but empty"),
        ("-R web", "nothing to do: name a task"),
        ("-x lb1,web,celery check", "check: -x leaves no host to run on"),
        ("-P -- uptime", "command: no hosts to run on: add -R ROLE or -H HOST"),
        ("-z 0 check", "-z takes a number of hosts, not 0"),
        ("-z x check", "'x' is not a whole number"),
        ("audit --last x", "'x' is not a whole number"),
        ("--batch 0% check", "--batch takes"),
        ("--deploy-date soon check", "'soon' is not a deploy date"),
        ("-I nowhere.json check", "nowhere.json: cannot be read"),
        ("-f nowhere.yml check", "nowhere.yml: No such file"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_2(words, said):
    output, errors = fab(*words.split(), code=2)
    assert said in errors and output == ""
    assert errors.startswith("fab: ") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deploy:\n\tkeep: 3", "line 2, column 1: not YAML"),
        ("- deploy", "not a mapping of sections"),
        ("units: 3", "units must be a mapping of settings, not 3"),
        ("deploy:", "deploy must be a mapping of settings, not None"),
        ("\udcff", "not YAML"),
    ],
)
def test_a_broken_fabric_yml_is_told_before_anything_is_done(text, said, tmp_path, monkeypatch):
    (tmp_path / "fabric.yml").write_text(text, errors="surrogateescape")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    with pytest.raises(Exit) as stopped:
        cli.install()
    assert stopped.value.code == 2 and said in stopped.value.message


def test_another_fabric_yml_is_read_and_checked(tmp_path):
    other = tmp_path / "other.yml"
    for text, said in {"run: 3": "where others have a mapping", "deploy: {keep: 0}": "1 or more",
                       "fleet: {connect_with: dns}": "private_dns or public_dns"}.items():
        other.write_text(text)
        assert said in fab("-f", other, "--dry", "check", code=2)[1]


def test_the_environment_sets_any_setting_of_one_word():
    _, errors = fab("check", code=2, env={**os.environ, "FABRIC_DEPLOY_KEEP": "abc"})
    assert "FABRIC_DEPLOY_KEEP" in errors and "'abc'" in errors
    output, _ = fab("--dry", "restart_celery", env={**os.environ, "FABRIC_SERVICES_SUDO": "1"})
    assert "sudo -n" in output


THAT_REACH_HOSTS = """audit cache_stats celery_status check clear_cache rollback rollforward
    running releases restart_celery setup trust_hosts unlock sandbox_status"""


def test_dry_opens_no_connection_whatever_the_task(tmp_path):
    """Listeners stand where the hosts would be; nobody comes."""
    path = inventory_of(FLEET, "127.0.71", tmp_path / "servers.json")
    tasks = THAT_REACH_HOSTS.split()
    with ExitStack() as stack:
        ports = [(number, port) for number in range(1, len(FLEET) + 1) for port in (2222, 11211)]
        doors = [stack.enter_context(socket.create_server((f"127.0.71.{number}", port)))
                 for number, port in ports]
        output, _ = fab("-I", path, "--dry", *tasks)
        for door in doors:
            door.settimeout(0)
            with pytest.raises(BlockingIOError):
                door.accept()
    assert "no host is locked" not in output
    assert re.search(r"^web1 \| .*FORCE=yes .* unlock;", output, re.M)


def test_the_search_root_may_be_anywhere(tmp_path):
    output, _ = fab("-r", ROOT, "--dry", "-R", "solr", "check", cwd=tmp_path, code=2)
    assert output == ""
    assert "web1 | uptime" in fab("-r", ROOT, "--dry", "-R", "web", "--", "uptime", cwd=tmp_path)[0]


def test_nothing_is_compiled_at_each_start(tmp_path):
    for name in ("fabfile", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fabric.yml", "inventory.py", "servers.json"):
        shutil.copy(ROOT / name, tmp_path)
    environ = {**os.environ}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    fab("--list", cwd=tmp_path, env=environ)
    compiled = {path.name.partition(".")[0] for path in (tmp_path / "fabfile").glob("*/*.pyc")}
    assert {"cli", "deploy", "fleet", "release"} <= compiled


def test_a_reader_that_leaves_is_no_error():
    listing = subprocess.Popen([BIN / "fab", "--list"], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    listing.stdout.close()
    assert "Traceback" not in listing.stderr.read() and listing.wait() == 0


TASKS = '''
import io
from fabfile.env import env
from fabfile.fleet import once, task

@task(roles=["bare"])
def quiet(c):
    """Hides what it runs, moves a file, and leaves a word for later."""
    assert c.run("echo hidden", hide=True).stdout == "hidden\\n"
    c.put(io.BytesIO(b"moved"), "file")
    c.get("file", taken := io.BytesIO())
    env.ticket = taken.getvalue().decode()
    c.run("cat; printf 'no newline'")

@task(roles=["bare"])
def word(c):
    """Says the word, and the run's date."""
    c.run(f"echo {env.ticket} {env.deploy_date}")

@task(roles=["bare"])
def careless(c):
    """Fails on one host only."""
    {}["key"] if c.host.endswith(".2") else c.run("printf →%.0s $(seq 20000)", hide=True)
'''


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """A team with tasks of its own, in its own copy of the toolkit, and three bare hosts."""
    folder = tmp_path_factory.mktemp("fork")
    for name in ("fabfile", "templates", "sandbox"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("inventory.py", "fabric.yml", "servers.json"):
        shutil.copy(ROOT / name, folder)
    (folder / "fabfile/ours.py").write_text(TASKS)
    names = folder / "fabfile/__init__.py"
    names.write_text(names.read_text().replace(
        "\ncli.install", "\nfrom .ours import careless, quiet, word\n\ncli.install"))
    hosts = [(f"bare{number}", ["bare"]) for number in (1, 2, 3)]
    team = Team(inventory_of(hosts, "127.0.71", folder / "fleet.json"))
    team.folder = folder
    fab("-I", team.inventory, "sandbox_up")
    yield team
    fab("-I", team.inventory, "sandbox_down")


def ours(team, *words, **kwargs):
    return fab("-r", team.folder, "-I", team.inventory, *words, **kwargs)


def logins(team):
    logs = (team.folder / ".sandbox/state").glob("*/sshd.log")
    return sum(log.read_text().count("Accepted publickey") for log in logs)


def test_a_teams_own_tasks_share_connections_the_date_and_env(team):
    before = logins(team)
    output, _ = ours(team, "--deploy-date", "20261124083000", "quiet", "word")
    said = [line for line in output.splitlines() if " | " in line]
    assert said == [f"bare{n} | no newline" for n in (1, 2, 3)] + [
        f"bare{n} | moved 20261124083000" for n in (1, 2, 3)]
    assert re.search(r"^word +3 hosts ok ", output, re.M)
    assert logins(team) == before + 3


def test_a_mistake_in_a_task_is_that_hosts_failure(team):
    output, errors = ours(team, "-P", "careless", code=1)
    assert re.search(r"^bare2 +0 +careless +failed$", output, re.M)
    assert re.search(r"^bare3 +1 +careless +ok$", output, re.M)
    assert re.fullmatch(r"fab: bare2: KeyError: 'key' \(\S+ours.py:\d+\)\n", errors)


def test_hosts_that_were_not_come_to_are_in_the_table(team):
    output, _ = ours(team, "careless", code=1)
    assert re.search(r"^bare3 +0 +- +not started$", output, re.M)


def test_json_is_all_there_is_on_standard_output_when_it_fails(team):
    output, errors = ours(team, "--json", "-P", "careless", code=1)
    events = [json.loads(line) for line in output.splitlines()]
    assert events[-1]["rows"][1] == {
        "host": "bare2", "steps done": "0", "last step": "careless", "state": "failed"}
    assert errors.startswith("fab: bare2: ")


def test_skipped_hosts_are_named_but_never_all_of_them(team, tmp_path):
    entries = json.loads(team.inventory.read_text())
    entries[0] |= {"private_dns": "127.0.71.99", "public_dns": "127.0.71.99"}
    gone = team.inventory.with_name("gone.json")
    gone.write_text(json.dumps(entries))
    output, _ = fab("-I", gone, "--skip-bad-hosts", "-R", "bare", "--", "echo fine")
    assert output.count("| fine") == 2 and "bare1 | left out: " in output
    fab("-I", gone, "--skip-bad-hosts", "-H", "bare1", "-P", "--", "true", code=5)


@pytest.mark.parametrize(
    ("numbers", "command"),
    [((signal.SIGHUP,), "sleep 4326"),
     ((signal.SIGTERM, signal.SIGTERM), "trap '' TERM; sleep 4326")],
)
def test_a_signal_ends_a_run_as_ctrl_c_does_and_a_second_one_changes_nothing(
        team, numbers, command):
    run = subprocess.Popen(
        [BIN / "fab", "-I", team.inventory, "-R", "bare", "-P", "--", f"echo up; {command}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert [run.stdout.readline() for _ in range(3)][-1].endswith("| up\n")
    for number in numbers:
        run.send_signal(number)
        time.sleep(0.3)
    output, errors = run.communicate(timeout=30)
    assert run.returncode == 130 and output.count("interrupted") == 3
    assert "Traceback" not in errors and ("please wait" in errors) == (len(numbers) == 2)
