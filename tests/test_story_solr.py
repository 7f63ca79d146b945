"""The search fleet for real, in the order a team lives it: each test goes on from the last."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from fabfile import corpus, launcher, nginx
from fabfile.errors import NotInstalled
from tests.conftest import BIN, ROOT, Team, inventory_of

HOSTS = (
    ("lb1", ["nginx"]),
    ("solr1", ["solr", "solr_master"]),
    ("solr2", ["solr", "solr_slave"]),
    ("solr3", ["solr", "solr_slave"]),
    ("web1", ["web"]),
)
LB, SOLR1, SOLR2, SOLR3 = (f"http://127.0.81.{number}:8983/solr" for number in range(1, 5))
CONFIG, SCHEMA = "solrconfig.xml.j2", "schema.xml"
CITY = (SCHEMA, 'name="city_exact" type="string"', 'name="city_exact" type="text_en"')
DOCUMENTS = 200
pytestmark = pytest.mark.story


class Fork(Team):
    """A team with a fork of its own, whose templates it may change."""

    def __init__(self, inventory, folder):
        super().__init__(inventory)
        self.folder = folder
        for name in ("fabfile", "templates", "sandbox"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("fabric.yml", "inventory.py"):
            shutil.copy(ROOT / name, folder / name)

    def start(self, *words, **kwargs):
        return subprocess.Popen(
            [BIN / "fab", "-I", self.inventory, *map(str, words)], cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            **kwargs,
        )

    def home(self, name):
        return self.inventory.parent / ".sandbox/hosts" / name

    def ctl(self, name, *words):
        """supervisorctl on a host."""
        config = self.home(name) / "supervisord.conf"
        return subprocess.run([BIN / "supervisorctl", "-c", config, *words], capture_output=True,
                              text=True, timeout=60).stdout

    def kill(self, name):
        """kill -9 of a Solr, which is kept from coming back."""
        pid = int(self.ctl(name, "pid", "solr"))
        self.ctl(name, "signal", "KILL", "solr")
        self.ctl(name, "stop", "solr")
        assert not Path(f"/proc/{pid}").exists()

    def status(self, code=0):
        """host → its row of solr_status."""
        return rows_of(self.fab("--json", "solr_status", code=code))


def rows_of(output):
    """host → its row in what `fab --json solr_status` prints."""
    tables = [json.loads(line) for line in output.splitlines() if '"table"' in line]
    return {row["host"]: row for row in tables[0]["rows"]}


class changed:
    """A file of the core's templates, for a while: `old` replaced by `new`."""

    def __init__(self, team, name, old, new):
        self.path = team.folder / "templates/solr/conference/conf" / name
        self.old, self.new = old, new

    def __enter__(self):
        self.text = self.path.read_text()
        assert self.old in self.text
        self.path.write_text(self.text.replace(self.old, self.new))

    def __exit__(self, *exc):
        self.path.write_text(self.text)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    try:
        launcher.ready((), print)
    except NotInstalled as stop:
        pytest.skip(str(stop))
    inventory = inventory_of(HOSTS, "127.0.81", tmp_path_factory.mktemp("solr") / "servers.json")
    team = Fork(inventory, tmp_path_factory.mktemp("fork"))
    try:
        team.fab("sandbox_up")
        yield team
    finally:
        team.fab("sandbox_down")


def ask(url, data=None, kind="text/xml"):
    """Status and text of an answer."""
    request = urllib.request.Request(url, data and data.encode(), {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def add(numbers, commit=True, base=LB, text="running conferences, talk"):
    """Indexes documents as pysolr does."""
    documents = "".join(
        f'<doc><field name="id">directory.session.{n}</field><field name="title">Talk {n}</field>'
        f'<field name="text">{text} {n}</field><field name="city_exact">New Berlin</field></doc>'
        for n in numbers)
    url = f"{base}/conference/update/?commit={'true' if commit else 'false'}"
    return ask(url, f"<add>{documents}</add>")


def count(base=LB, query="text:conference"):
    """How many documents a search finds."""
    status, text = ask(f"{base}/conference/select/?{urllib.parse.urlencode({'q': query})}")
    assert status == 200, text
    return json.loads(text)["response"]["numFound"]


def in_sync(team, seconds=20):
    """solr_status once it has nothing to complain of."""
    deadline = time.monotonic() + seconds
    while True:
        run = team.start("--json", "solr_status")
        output = run.communicate()[0]
        if run.returncode == 0:
            return rows_of(output)
        assert time.monotonic() < deadline, output
        time.sleep(0.3)


class Searchers:
    """Searches through the load balancer, each of which must find all documents."""

    def __init__(self, documents=DOCUMENTS, pause=0.02):
        self.documents, self.pause, self.count, self.failures = documents, pause, 0, []

    def __enter__(self):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._search) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def _search(self):
        while not self.stop.is_set():
            self.count += 1
            try:
                found = count(query="text:conference")
                if found != self.documents:
                    self.failures.append(f"{time.strftime('%T')} found {found}")
            except Exception as error:  # a torn answer too
                self.failures.append(f"{time.strftime('%T')} {error}")
            time.sleep(self.pause)  # the fleet needs the processor too

    def __exit__(self, *exc):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        print(f"{self.count} searches, {len(self.failures)} failed")


class Writers:
    """What a site does meanwhile: documents are added, changed and deleted through nginx."""

    def __init__(self):
        self.wanted, self.failures = {}, []

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._write)
        self.thread.start()
        return self

    def _write(self):
        url, number = f"{LB}/conference/update/?commit=true", 0
        while not self.stop.is_set():
            number += 1
            key, old = f"w{number % 50}", f"directory.session.w{(number - 20) % 50}"
            answers = [add([key], text=f"written as number {number},")]
            self.wanted[f"directory.session.{key}"] = f"written as number {number}, {key}"
            if number % 3 == 0:
                answers.append(ask(url, f"<delete><id>{old}</id></delete>"))
                self.wanted.pop(old, None)
            self.failures += [answer for answer in answers if answer[0] != 200]
            time.sleep(0.05)

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()
        print(f"{len(self.wanted)} documents were written last, {len(self.failures)} writes failed")

    def found(self, base):
        """What of it a Solr has."""
        query = urllib.parse.urlencode({"q": "text:written", "rows": 100, "fl": "id,text"})
        answer = json.loads(ask(f"{base}/conference/select?{query}")[1])
        return {one["id"]: one["text"] for one in answer["response"]["docs"]}

    def delete(self):
        ask(f"{LB}/conference/update/?commit=true",
            "<delete><query>text:written</query></delete>")


def releases(team):
    """host → the release that is current there."""
    return {host: os.readlink(team.home(host) / "solr/current").partition("/")[2]
            for host in ("solr1", "solr2", "solr3")}


def running(team):
    """`fab running` finds on each host that its core runs what is current there."""
    rows = team.json("-R", "solr", "running")
    assert {row["host"]: row["runs"] for row in rows} == releases(team)
    assert {row["unit"] for row in rows} == {"core conference"}


def leftovers(team):
    """The folders of Solr's home that are no live core's; nor does Solr have any such core."""
    names = [name for base in (SOLR1, SOLR2, SOLR3)
             for name in json.loads(ask(f"{base}/admin/cores?wt=json")[1])["status"]]
    assert set(names) == {"conference"}
    return [path.name for host in ("solr1", "solr2", "solr3")
            for path in (team.home(host) / "solr-home").glob("*/core.properties")
            if "name=conference\n" not in path.read_text()] + [
        path.name for host in ("solr1", "solr2", "solr3")
        for path in (team.home(host) / "solr-home").glob("scratch*")]


def test_before_a_deploy_there_is_nothing_to_report(team):
    assert "no core yet: fab deploy_solr" in team.fab("solr_status", code=1)
    assert {(row["runs"], row[""]) for row in team.json("-R", "solr", "running")} == {("-", "-")}


def test_the_first_deploy_makes_the_core_everywhere(team):
    team.fab("deploy_solr", "deploy_nginx")
    rows = team.status()
    assert {row["release"] for row in rows.values()} != {"-"}
    assert {host: row["is"] for host, row in rows.items()} == {
        "solr1": "master", "solr2": "slave", "solr3": "slave"}
    assert leftovers(team) == []


def test_what_is_written_through_nginx_is_found_through_nginx(team):
    assert add(range(DOCUMENTS))[0] == 200
    rows = in_sync(team)
    assert {row["documents"] for row in rows.values()} == {str(DOCUMENTS)}
    assert count() == DOCUMENTS
    long = "text:conference OR " + " OR ".join(f"id:x{n}" for n in range(300))
    status, text = ask(f"{LB}/conference/select/", urllib.parse.urlencode({"q": long}),
                       "application/x-www-form-urlencoded")
    assert (status, json.loads(text)["response"]["numFound"]) == (200, DOCUMENTS)
    log = (team.home("lb1") / "logs/nginx-search.log").read_text()
    reads = [line for line in log.splitlines() if "/select" in line]
    assert reads and not any("127.0.81.2:8983" in line for line in reads)


@pytest.mark.parametrize("path", ["/update", "/update/", "/update/json", "/update/json/docs",
                                  "/update/csv", "/update;a=b", "/select?qt=/update"])
def test_a_slave_takes_no_update(team, path):
    document = '<add><doc><field name="id">intruder</field></doc></add>'
    status, _ = ask(f"{SOLR2}/conference{path}", document)
    ask(f"{SOLR2}/conference/update?commit=true", "<commit/>")
    assert status in (400, 404)
    assert count(SOLR2, "id:intruder") == 0


def test_no_request_of_the_corpus_changes_the_index_of_a_slave(team):
    """Through nginx all of them; and those that name an update at a slave itself, in Jetty."""
    requests = corpus.read(nginx.CORPUS.read_text(), "search.corpus")
    updates = [one for one in requests if "pdate" in unquote(one.line).lower()]
    for base in (SOLR2, SOLR3):
        ask(f"{base}/conference/replication?command=disablepoll")
    master, slaves = state(SOLR1), [state(SOLR2), state(SOLR3)]
    add(range(3))  # what a commit that gets through would show
    answers = [status_of(LB, one) for one in requests]
    assert len(updates) > 30
    for one in updates:
        body = '<add><doc><field name="id">intruder</field></doc></add>' if one.body else ""
        for request in (one, replace(one, body=body)):
            assert status_of(SOLR2, request) >= 400 or one.who != "write", one
    ask(f"{SOLR2}/conference/update?commit=true", "<commit/>")
    assert [state(SOLR2), state(SOLR3)] == slaves
    assert state(SOLR1) != master  # so they do reach where they are to reach
    denied = {answer for one, answer in zip(requests, answers, strict=True) if one.who == "nobody"}
    assert denied <= {400, 403, 405, 505} and 200 not in denied, denied
    for base in (SOLR2, SOLR3):
        ask(f"{base}/conference/replication?command=enablepoll")
    ask(f"{LB}/conference/update", "<delete><query>*:*</query></delete>")
    add(range(DOCUMENTS))
    in_sync(team)


def state(base):
    """The moment, the generation and the documents of an index."""
    found = json.loads(ask(f"{base}/conference/replication?command=indexversion")[1])
    return found["indexversion"], found["generation"], count(base, "*:*")


def status_of(base, request):
    """The status of the answer to a request of the corpus; 400 if there is none."""
    with socket.create_connection((urllib.parse.urlsplit(base).hostname, 8983), 30) as link:
        link.sendall(request.encoded())
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    return int(answer[9:12] or 400)


@pytest.mark.parametrize("path", ["admin/cores", "conference/replication?command=details",
                                  "conference/config", "conference/schema", "conference/export",
                                  "scratch.conference/select", "conference/select?shards=a:1/solr"])
def test_nginx_lets_nothing_else_through(team, path):
    assert ask(f"{LB}/{path}")[0] == 403


def test_good_configurations_are_deployed_and_rolled_back_without_a_failed_search(team):
    first = releases(team)
    field = '<field name="about" type="text_en" indexed="true" stored="true"/>'
    with Searchers() as searchers:
        with changed(team, SCHEMA, "<!-- What the i", f"{field}<!-- What the i"):
            team.fab("deploy_solr")
        second = releases(team)
        team.fab("rollback_solr")
        assert releases(team) == first
        team.fab("rollback_solr", "--to", second["solr1"])
        assert releases(team) == second
        team.fab("rollback_solr")  # now without the field, which a deploy would have to refuse
        team.fab("deploy_solr")
    assert searchers.failures == []
    assert searchers.count > 100
    team.status()


def test_a_class_that_is_not_there_is_found_before_anything_is_switched(team):
    before = releases(team)
    with changed(team, CONFIG, "solr.MoreLikeThisHandler", "solr.Nowhere"), \
            Searchers() as searchers:
        output = team.fab("deploy_solr", code=1)
    assert "solr3: core conference: " in output and "solr.Nowhere" in output
    assert searchers.failures == []
    assert releases(team) == before
    assert leftovers(team) == []


def test_what_fails_only_once_it_is_live_goes_back_everywhere(team):
    before = releases(team)
    handler = '<requestHandler name="/late" class="${update.handler:solr.Nowhere}"/>'
    with changed(team, CONFIG, "</config>", f"{handler}</config>"), Searchers() as searchers:
        output = team.fab("deploy_solr", code=7)
    assert "every host is back on the release it had" in output
    assert searchers.failures == []
    assert releases(team) == before
    team.status()


def test_a_schema_that_needs_a_new_index_is_refused_field_by_field(team):
    before = releases(team)
    assert "solr2 | nothing would change" in team.fab("--dry", "deploy_solr")
    with changed(team, *CITY):
        shown = team.fab("--dry", "deploy_solr")
        output = team.fab("deploy_solr", code=6)
    for host in ("solr1", "solr2", "solr3"):
        assert f'{host} | -  <field name="city_exact" type="string"' in shown
        assert f'{host} | +  <field name="city_exact" type="text_en"' in shown
        assert f"{host} | --reindex is needed: core conference: field city_exact: its" in shown
    assert "core conference: field city_exact: its type was string and is text_en" in output
    assert releases(team) == before


# A reindex. Before it nothing is found by one word of a city, as the type string has it.


def test_an_index_is_built_anew_beside_the_one_that_answers(team):
    before, slaves = releases(team), (SOLR2, SOLR3)
    with changed(team, *CITY), Searchers() as searchers:
        with Writers() as writers:
            team.fab("deploy_solr", "--reindex")
        rows = in_sync(team)
        running(team)  # cores that were loaded before the switch, and swapped in after it
        assert writers.found(SOLR1) == writers.found(SOLR2) == writers.wanted
        writers.delete()
        in_sync(team)
        assert [count(base, "city_exact:berlin") for base in slaves] == [DOCUMENTS, DOCUMENTS]
        assert {row["polls"] for row in rows.values()} == {"-", "yes"}
        assert leftovers(team) == []
        output = team.fab("rollback_solr", code=6)
        assert "field city_exact: its type was text_en and is string" in output
        team.fab("rollback_solr", "--reindex")
    assert writers.failures == searchers.failures == []
    assert releases(team) == before
    assert [count(base, "city_exact:berlin") for base in slaves] == [0, 0]
    assert leftovers(team) == []


def test_an_index_that_cannot_be_built_anew_leaves_the_one_that_is_there(team):
    before = releases(team)
    no_date = ('name="city_exact" type="string"', 'name="city_exact" type="date"')
    with changed(team, SCHEMA, *no_date), Searchers() as searchers:
        assert "not without solr3" in team.fab("-x", "solr3", "deploy_solr", "--reindex", code=6)
        output = team.fab("deploy_solr", "--reindex", code=1)
    assert "solr1: core conference: " in output and "New Berlin" in output
    assert searchers.failures == []
    assert releases(team) == before
    assert leftovers(team) == []


def test_a_reindex_that_is_interrupted_goes_back_to_the_index_that_was(team):
    before = releases(team)
    with changed(team, *CITY), Searchers() as searchers:
        run = team.start("deploy_solr", "--reindex")
        assert any(line.startswith("ask ") for line in run.stdout)  # every host has switched
        run.send_signal(signal.SIGINT)
        output = run.communicate()[0]
        assert run.returncode == 130, output
    assert searchers.failures == []
    assert releases(team) == before
    team.status()
    running(team)  # swapped back: loaded long before this switch
    assert count(SOLR2, "city_exact:berlin") == 0
    assert leftovers(team) == []


@pytest.mark.parametrize("moment", ["reindex", "reload"])
def test_a_reindex_that_is_killed_leaves_the_old_index_and_the_next_run_tidies(team, moment):
    before = releases(team)
    team.env["FABRIC_DEPLOY_LEASE"] = "2"
    with changed(team, *CITY), Searchers() as searchers:
        run = team.start("deploy_solr", "--reindex")
        assert any(line.startswith(moment) for line in run.stdout)
        run.kill()
        run.communicate()
        del team.env["FABRIC_DEPLOY_LEASE"]
        assert {host: row["release"] for host, row in in_sync(team).items()} == before
        assert count(SOLR2, "city_exact:berlin") == 0
    team.fab("deploy_solr")
    assert searchers.failures == []
    assert leftovers(team) == []


def test_a_killed_run_leaves_cores_that_serve_and_nothing_else(team):
    moments = random.Random(2011)
    with Searchers() as searchers:
        for _ in range(4):
            run = team.start("deploy_solr")
            time.sleep(moments.uniform(0.8, 4))
            run.kill()
            run.communicate()
        time.sleep(1)
        team.fab("deploy_solr")
    assert searchers.failures == []
    assert len(set(releases(team).values())) == 1
    assert leftovers(team) == []


def test_a_run_that_falls_silent_leaves_hosts_that_go_back_by_themselves(team):
    before = releases(team)
    field = '<field name="about" type="text_en" indexed="true" stored="true"/>'
    with changed(team, SCHEMA, "<!-- What the i", f"{field}<!-- What the i"), \
            Searchers() as searchers:
        team.env["FABRIC_DEPLOY_LEASE"] = "2"
        run = team.start("deploy_solr")
        assert any(line.startswith("reload") for line in run.stdout)
        run.kill()
        run.communicate()
        del team.env["FABRIC_DEPLOY_LEASE"]
        assert {host: row["release"] for host, row in in_sync(team).items()} == before
    assert searchers.failures == []


def test_a_new_folder_is_a_new_core_and_goes_with_a_rollback(team):
    folder = team.folder / "templates/solr"
    shutil.copytree(folder / "conference", folder / "people")
    try:
        team.fab("deploy_solr")
        assert ask(f"{LB}/people/select?q=*:*")[0] == 200
        team.fab("rollback_solr")
        assert ask(f"{LB}/people/select?q=*:*")[0] == 404
        assert count() == DOCUMENTS
    finally:
        shutil.rmtree(folder / "people")


def test_an_edited_file_shows_as_drift_and_is_healed(team):
    path = team.home("solr2") / "solr/current/conference/conf/schema.xml"
    text = path.read_text()
    path.unlink()
    path.write_text(text + "<!-- by hand -->")
    assert team.status(code=1)["solr2"]["drift"] == "edited: conference/conf/schema.xml"
    team.fab("deploy_solr")
    assert team.status()["solr2"]["drift"] == "-"


def test_a_host_that_was_down_shows_as_drift_and_is_healed(team):
    team.ctl("solr3", "stop", "solr")
    assert "solr3: Solr at 127.0.81.4:8983" in team.fab("deploy_solr", code=1)
    team.fab("-x", "solr3", "deploy_solr")
    team.ctl("solr3", "start", "solr")
    wait_for(SOLR3)
    assert team.status(code=1)["solr3"]["drift"] == "another release"
    output = team.fab("-R", "solr", "running", code=1)
    assert re.search(r"^fab: hosts have different releases in solr: solr1 \d+, solr2", output, re.M)
    team.fab("-H", "solr3", "deploy_solr")
    team.fab("deploy_solr")
    assert len(set(releases(team).values())) == 1


def wait_for(base, seconds=40, question=count):
    """Until a Solr answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return question(base)
        except (OSError, AssertionError):
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_a_core_that_does_not_load_at_start_is_named_and_healed(team):
    conf = team.home("solr2") / "solr/current/conference/conf/solrconfig.xml"
    text = conf.read_text()
    conf.unlink()
    conf.write_text(text.replace("solr.SearchHandler", "solr.Nowhere"))
    team.ctl("solr2", "restart", "solr")
    wait_for(SOLR2, question=lambda base: ask(f"{base}/admin/info/system"))
    assert "solr.Nowhere" in team.status(code=1)["solr2"]["error"]
    team.fab("deploy_solr")
    assert count(SOLR2) == DOCUMENTS


def test_lag_appears_and_vanishes(team):
    ask(f"{SOLR2}/conference/replication?command=disablepoll")
    add(range(DOCUMENTS, DOCUMENTS + 5))
    row = team.status(code=1)["solr2"]
    assert (row["polls"], row["behind"]) == ("no", "1")
    ask(f"{SOLR2}/conference/replication?command=enablepoll")
    assert in_sync(team)["solr2"]["documents"] == str(DOCUMENTS + 5)


def test_sigterm_closes_the_index(team):
    add(["late"], commit=False)
    team.ctl("solr1", "restart", "solr")
    wait_for(SOLR1)
    assert count(SOLR1, "id:directory.session.late") == 1
    in_sync(team)


def test_reads_go_on_without_a_slave_and_without_the_master(team):
    expected = count()
    with Searchers(expected, pause=0) as searchers:
        team.kill("solr2")
        while searchers.count < 500:
            time.sleep(0.1)
        team.kill("solr1")
        killed = searchers.count
        while searchers.count < killed + 500:
            time.sleep(0.1)
        assert add(["lost"])[0] == 502
    assert searchers.failures == []
    log = (team.home("lb1") / "logs/nginx-search.log").read_text()
    write = [line for line in log.splitlines() if "/update" in line][-1]
    assert write.endswith("upstream 127.0.81.2:8983 502 0.000 s") or "127.0.81.2:8983 502" in write
    assert "its master does not answer" in team.status(code=1)["solr3"]["error"]
    team.fab("sandbox_up")
    in_sync(team)


def test_a_master_that_answers_is_not_replaced(team):
    before = team.inventory.read_text()
    assert "solr1 answers: it is not dead" in team.fab("promote_solr", code=6)
    assert team.inventory.read_text() == before


def test_a_slave_takes_the_place_of_a_dead_master(team):
    add(["acknowledged"])
    rows, expected = in_sync(team), count()
    assert {row["documents"] for row in rows.values()} == {str(expected)}
    team.kill("solr1")
    with Searchers(expected) as searchers:
        output = team.fab("promote_solr", "--to", "solr3")
    assert "promote    solr3 in place of solr1" in output
    assert searchers.failures == []
    assert add(["after"])[0] == 200
    assert count(SOLR3) == expected + 1
    team.fab("sandbox_up")  # the old master is back: nothing is sent to it
    wait_for(SOLR1)
    assert team.status(code=1)["solr1"]["drift"] == "another release"
    team.fab("deploy_solr")
    rows = in_sync(team)
    assert {host: row["is"] for host, row in rows.items()} == {
        "solr1": "slave", "solr2": "slave", "solr3": "master"}
    assert {row["documents"] for row in rows.values()} == {str(expected + 1)}
    team.inventory.write_text(team.inventory.read_text().replace('"vars": {"solr_down": true}',
                                                                 '"vars": {}'))
    team.fab("deploy_nginx")


def test_a_solr_that_cannot_start_says_why(team):
    team.ctl("solr2", "stop", "solr")
    broken = team.home("solr2") / "solr-home/security.json"
    broken.write_text("{ no json")
    try:
        output = team.fab("sandbox_up", code=1)
    finally:
        broken.unlink()
    assert "solr2: solr on 127.0.81.3 did not come up" in output
    assert "Solr did not start: " in output
    team.fab("sandbox_up")
    wait_for(SOLR2)


def test_nothing_is_left(team):
    pids = [int(team.ctl(name, "pid", "solr")) for name in ("solr1", "solr2", "solr3")]
    team.fab("sandbox_down")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
