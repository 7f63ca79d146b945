"""Bare hosts with a real sshd: how they are reached, and what becomes of commands on them."""

import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import fabric
import pytest
import yaml

import inventory
from fabfile import processes
from fabfile.env import env
from fabfile.errors import Failed, Interrupted, Unreachable, Usage, worst
from fabfile.fleet import Fleet, Outcome, Outcomes, Session, batch_size, last_words
from fabfile.ssh import Addresses, open_connection, read_ssh_config
from tests.conftest import BIN, ROOT, Team, inventory_of

HOSTS = [(f"bare{number}", ["bare"]) for number in range(1, 7)]


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    path = inventory_of(HOSTS, "127.0.3", tmp_path_factory.mktemp("bare") / "servers.json")
    team = Team(path)
    try:
        team.fab("sandbox_up")
        yield team
    finally:
        team.fab("sandbox_down")


def test_a_command_on_a_role(team):
    output = team.fab("-R", "bare", "-x", "bare6", "-P", "--", "echo from $PWD")
    said = dict(line.split(" | ") for line in output.splitlines() if " | " in line)
    assert sorted(said) == [f"bare{n}" for n in range(1, 6)]
    assert all(text.endswith(name) for name, text in said.items())


def test_without_parallel_the_first_failure_is_the_last_host(team):
    output = team.fab("-R", "bare", "--", "hostname; exit 3", code=1)
    assert "bare1 | " in output and "bare2 | " not in output


def test_everybody_is_waited_for_in_parallel(team):
    command = "case $HOME in *bare2) exit 3; esac; echo fine"
    output = team.fab("-R", "bare", "-P", "--", command, code=1)
    assert output.count("| fine") == 5
    assert re.search(r"^bare2 +0 +command +failed", output, re.M)


def test_json_is_the_only_thing_on_standard_output(team):
    process = subprocess.run(
        [BIN / "fab", "-I", team.inventory, "--json", "-R", "bare", "-P", "--",
         "echo out; echo err >&2"],
        env=team.env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    events = [json.loads(line) for line in process.stdout.splitlines()]
    assert {event["host"] for event in events if event["event"] == "done"} == {h for h, _ in HOSTS}


def test_a_killed_command_is_a_failure_that_says_so(team):
    output = team.fab("-H", "bare1", "-P", "--", "kill -9 $$", code=1)
    assert "fab: bare1: " in output


def test_a_host_that_is_gone_is_unreachable_and_may_be_skipped(team, tmp_path):
    entries = json.loads(team.inventory.read_text())
    entries[1] |= {"private_dns": "127.0.3.99", "public_dns": "127.0.3.99"}
    path = team.inventory.parent / "gone.json"
    path.write_text(json.dumps(entries))
    other = Team(path)
    assert "bare2: " in other.fab("-R", "bare", "-P", "--", "true", code=5)
    output = other.fab("-R", "bare", "-P", "--skip-bad-hosts", "--", "echo fine")
    assert output.count("| fine") == 5


def test_a_changed_key_is_refused_with_both_fingerprints_until_it_is_learned(team):
    known = team.inventory.parent / ".sandbox/known_hosts"
    good = known.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", known.parent / "other"],
                   check=True)
    other = (known.parent / "other.pub").read_text().split()[1]
    known.write_text(re.sub(r"(\[127\.0\.3\.1\]:2222 ssh-ed25519) \S+", rf"\1 {other}", good))
    try:
        output = team.fab("-H", "bare1", "-P", "--", "true", code=5)
        assert "CHANGED" in output and output.count("SHA256:") >= 2 and "trust_hosts" in output
        team.fab("-H", "bare1", "trust_hosts", code=6)
        team.fab("-H", "bare1", "trust_hosts", "--yes")
        team.fab("-H", "bare1", "-P", "--", "true")
    finally:
        known.write_text(good)


def test_an_unknown_key_is_refused_and_learned_on_request(team):
    known = team.inventory.parent / ".sandbox/known_hosts"
    good = known.read_text()
    known.write_text("")
    try:
        assert "not known yet" in team.fab("-H", "bare2", "-P", "--", "true", code=5)
        team.fab("trust_hosts", "--yes")
        team.fab("-R", "bare", "-P", "--", "true")
    finally:
        known.write_text(good)


def test_ctrl_c_ends_remote_work(team):
    run = team.start("-R", "bare", "-P", "--", "sleep 4321")
    wait_until(lambda: len(sleepers()) == 6)
    run.send_signal(signal.SIGINT)
    output = run.communicate(timeout=30)[0]
    assert run.returncode == 130, output
    wait_until(lambda: not sleepers())
    assert "interrupted" in output


def sleepers():
    return [pid for pid in processes.pids() if processes.command_line(pid) == "sleep 4321"]


def wait_until(question, seconds=20):
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_a_jump_host_is_opened_once_and_used_by_all(team):
    config = team.inventory.parent / ".sandbox/ssh_config"
    good = config.read_text()
    config.write_text("Host 127.0.3.2 127.0.3.3\n  ProxyJump 127.0.3.1\n\n" + good)
    try:
        output = team.fab("-H", "bare2,bare3", "-P", "--", "echo $SSH_CONNECTION")
    finally:
        config.write_text(good)
    assert output.count("127.0.") >= 2


def test_dry_prints_the_exact_commands_and_opens_nothing(team):
    output = team.fab("-R", "bare", "--dry", "-P", "--", "rm -rf /nothing")
    assert output.splitlines()[:6] == [f"bare{n} | rm -rf /nothing" for n in range(1, 7)]


def test_the_order_of_flags_does_not_matter(team):
    assert team.fab("check", "-R", "bare", code=2) == team.fab("-R", "bare", "check", code=2)


# What follows runs in this process: `fleet` is two of those hosts, impatient with them.

SHORT = {"silence": 2, "connect_timeout": 3, "ssh_config": [".sandbox/ssh_config"]}


@pytest.fixture
def fleet(team):
    settings = yaml.safe_load((ROOT / "fabric.yml").read_text())
    del settings["tasks"]
    env.load({**settings, "fleet": SHORT}, inventory=inventory.load(team.inventory))
    session = Session(fabric.Config())
    yield Fleet(env.inventory.hosts[:2], session)
    session.close()


def test_ctrl_c_is_heeded_while_the_work_is_handed_out(fleet, monkeypatch):
    class Interrupting(ThreadPoolExecutor):
        def submit(self, *work):
            super().submit(*work)
            wait_until(lambda: sleeping(4327))
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("fabfile.fleet.ThreadPoolExecutor", Interrupting)
    with pytest.raises(Interrupted):
        fleet.run("sleep 4327")
    wait_until(lambda: not sleeping(4327))


TOGETHER = "echo ready; read -r word; echo $word"


def test_commands_go_on_together_even_where_the_pool_is_smaller(fleet):
    fleet.session.pool_size = 1
    outcomes = fleet.run_together(TOGETHER)
    assert [outcome.stdout for outcome in outcomes.values()] == ["ready\ngo\n"] * 2


@pytest.mark.parametrize("failing", [
    "exit 3", "kill -9 $$", "echo ready; exit 3", "echo already; sleep 1.5; exit 3"])
def test_where_one_is_not_ready_none_goes_on(fleet, failing):
    first, second = fleet.hosts
    outcomes = fleet.run_together(lambda host: f"sleep 1; {TOGETHER}" if host is first else failing)
    assert (outcomes[first].stdout, outcomes[second].ok) == ("ready\n\n", False)


def sleeping(seconds):
    return [pid for pid in processes.pids()
            if processes.command_line(pid).endswith(f"sleep {seconds}")]


def states(outcomes):
    return [outcome.state for outcome in outcomes.values()]


def run_on_each(fleet, command):
    """The same command by both ways there are: the fleet's own, and a per-host task's."""
    yield fleet.run(command)
    yield fleet.connect(lambda c: c.run(command, hide=True))


def test_what_a_login_shell_says_is_no_answer(team, fleet):
    session = team.inventory.parent / ".sandbox/state/bare1/session"
    good = session.read_text()
    session.write_text(good.replace("exec", "echo current 19990101000000; printf Hello; exec", 1)
                       .replace("\nexec", "\nprintf 'current 1\\nHello '; exec"))
    try:
        outcomes = fleet.run("echo answer; printf 'no end'")
        session.write_text(good.replace("exec", "echo not available; exit 0; exec"))
        refused = fleet.run("true")
    finally:
        session.write_text(good)
    assert {outcome.stdout for outcome in outcomes.values()} == {"answer\nno end"}
    first = refused[fleet.hosts[0]]
    assert first.state == "failed" and first.reason.endswith("the command: not available")


def test_a_command_that_reads_nothing_is_not_waited_for(fleet):
    outcomes = fleet.run("exit 3", stdin=b"x" * 8_000_000)
    assert {(outcome.code, outcome.reason) for outcome in outcomes.values()} == {
        (3, "exit status 3")}


def test_sending_is_no_silence(fleet):
    slowly = "for n in 1 2 3 4 5 6; do head -c 3000000 >/dev/null; sleep 0.6; done"
    assert states(fleet.run(slowly, stdin=b"x" * 18_000_000)) == ["ok", "ok"]


def test_a_silent_command_is_ended(fleet):
    for outcomes in run_on_each(fleet, "sleep 4327; sleep 4327"):
        assert {outcome.reason for outcome in outcomes.values()} == {"no output for 2 s"}
        wait_until(lambda: not sleeping(4327))


def test_at_its_deadline_a_command_is_killed_if_it_does_not_end(fleet):
    outcomes = fleet.run("trap '' TERM; sleep 4328; sleep 4328", deadline=1)
    assert {outcome.reason for outcome in outcomes.values()} == {"not finished within 1 s"}
    wait_until(lambda: not sleeping(4328))


def test_a_lost_link_is_unreachable_and_never_success(fleet):
    fleet.run("true").check()
    for outcomes in run_on_each(fleet, "kill -9 $PPID; sleep 1"):
        assert states(outcomes) == ["unreachable"] * 2
        assert "the link was lost" in next(iter(outcomes.values())).reason
    fleet.run("true").check()


def test_a_host_that_no_longer_answers_is_unreachable_and_waited_for(fleet):
    pid = int(fleet.run("echo $PPID").check()[fleet.hosts[0]].stdout)  # its sshd
    os.kill(pid, signal.SIGSTOP)
    try:
        assert states(fleet.run("true")) == ["unreachable", "ok"]
    finally:
        os.kill(pid, signal.SIGCONT)
    fleet.run("true").check()


def test_a_killed_command_of_a_task_is_a_failure_even_with_warn(fleet):
    outcomes = fleet.connect(lambda c: c.run("kill -9 $$", warn=True))
    assert states(outcomes) == ["failed"] * 2


def test_a_task_may_read_much(fleet):
    started = time.monotonic()
    much = "head -c 10000000 /dev/zero | tr '\\0' x | fold -w 99"
    outcomes = fleet.connect(lambda c: len(c.run(much, hide=True).stdout))
    assert {outcome.value for outcome in outcomes.values()} == {10_000_000 + 101_010}
    assert time.monotonic() - started < 10


def test_a_busy_sshd_is_tried_again(team, fleet):
    config = team.inventory.parent / "busy.json"
    entries = json.loads(team.inventory.read_text())
    entries[0]["vars"] = {"max_startups": "1:100:2"}
    config.write_text(json.dumps(entries))
    Team(config).fab("-H", "bare1", "sandbox_up")
    connections = [Addresses(fleet.session.config).connection(fleet.hosts[0]) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_connection, connections))
    assert all(connection.is_connected for connection in connections)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    ("hosts", "hops", "reason"),
    [
        ("127.0.3.1", "127.0.3.4,127.0.3.5:2222", ""),
        ("127.0.3.*", "127.0.3.2", ""),
        ("127.0.3.*", "none", ""),
        ("127.0.3.1", "127.0.3.98", "jump host "),
    ],
)
def test_jump_hosts_are_those_of_ssh_config(team, fleet, hosts, hops, reason):
    way = team.inventory.parent / "way"
    way.write_text(f"Host {hosts}\n  ProxyJump {hops}\n")
    fleet.session.config.base_ssh_config = read_ssh_config(
        [way, ".sandbox/ssh_config"], team.inventory.parent)
    first, second = fleet.run("true").values()
    assert second.ok and first.ok == (not reason) and first.reason.startswith(reason)


def test_ssh_config_is_read_once_and_is_that_of_the_command_line(team, fleet, tmp_path):
    stanzas = len(fleet.session.config.base_ssh_config._config)
    assert fleet.run("true").check()
    assert len(fleet.session.config.base_ssh_config._config) == stanzas
    (tmp_path / "mine").write_text("User somebody-else\n")
    output = team.fab("-S", tmp_path / "mine", "-H", "bare1", "-P", "--", "true", code=5)
    assert "somebody-else@127.0.3.1:2222: its host key is not known yet" in output


def test_an_ssh_config_that_cannot_be_read_is_said_in_one_line(team, tmp_path):
    bad = tmp_path / "bad"
    bad.write_text("Host\n")
    for path, said in [(bad, "ssh_config: Unparsable line"), ("/nope", "/nope: No such file")]:
        assert f"fab: {said}" in team.fab("-S", path, "-R", "bare", "-P", "--", "true", code=2)
    with pytest.raises(Usage, match="bad: Unparsable line"):
        read_ssh_config([bad], tmp_path)


@pytest.mark.parametrize(("spec", "size"), [(None, 10), ("3", 3), ("25%", 3), ("100%", 10)])
def test_batch_sizes(spec, size):
    assert batch_size(spec, 10) == size


@pytest.mark.parametrize("spec", ["0", "0%", "101%", "-1", "many", "%"])
def test_batches_that_make_no_sense(spec):
    with pytest.raises(Usage, match="--batch takes"):
        batch_size(spec, 10)


class Named:
    def __init__(self, name):
        self.name = name


def test_the_stop_that_most_needs_a_person_is_raised_and_all_are_named():
    one, two = Named("one"), Named("two")
    outcomes = Outcomes({
        one: Outcome(one, Failed, 1, reason="disk full"),
        two: Outcome(two, Unreachable, None, reason="no answer"),
    })
    with pytest.raises(Unreachable, match="one: disk full\ntwo: no answer"):
        outcomes.check()
    assert isinstance(worst([Failed("a"), Unreachable("b")]), Unreachable)


def test_last_words_leave_out_empty_lines():
    assert last_words("a\n\nb\nc\n", 2) == "b\nc"


def test_the_first_ssh_config_wins_and_missing_files_are_no_error(tmp_path):
    (tmp_path / "one").write_text("Host 10.0.0.1\n  User ann\n")
    (tmp_path / "two").write_text("User bob\nHost *\n  Port 2200\n")
    config = read_ssh_config(["one", "nowhere", "two"], tmp_path)
    assert config.lookup("10.0.0.1")["user"] == "ann"
    assert config.lookup("10.0.0.2")["user"] == "bob"
    assert config.lookup("10.0.0.1")["port"] == "2200"
