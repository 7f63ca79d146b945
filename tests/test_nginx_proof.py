"""The proof of the search front, and what it would find out: each weakening of the template."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabfile import corpus, nginx
from fabfile.corpus import Request, judge, meaning
from fabfile.env import Deploy, Nginx, Solr, env
from fabfile.errors import Usage
from fabfile.nginx_proof import front, prove, scenarios
from tests.test_search import LB, MASTER, WEB, host

SLAVES = (host("solr2", "10.0.0.4", "solr_slave"), host("solr3", "10.0.0.5", "solr_slave"))
SOLRS = [(MASTER, "master"), *((slave, "slave") for slave in SLAVES)]
REQUESTS = corpus.read(nginx.CORPUS.read_text(), "search.corpus")
PORT = 8983


@pytest.fixture(scope="module")
def files():
    env.deploy, env.nginx, env.solr = Deploy(application="site", deploy_to="site"), Nginx(), Solr()
    return nginx.render(LB, (LB, WEB, MASTER, *SLAVES))


def wrong(files, modes=(), requests=REQUESTS):
    """What the proof finds wrong in one state of the fleet."""
    with front(files, SOLRS, PORT, modes) as one:
        return [problem for request in requests
                for problem in judge(request, one.fire(request), one.modes())]


def test_the_front_as_it_is_rendered_is_proved_in_every_state(files):
    said = []
    found = prove(files, SOLRS, PORT, REQUESTS, said.append)
    assert len(found) == len(REQUESTS)
    assert [line.split("  ")[0] for line in said] == [title for title, _ in scenarios(SOLRS)]
    assert all(line.endswith(f"{len(REQUESTS)} requests, 0 wrong") for line in said)


@pytest.mark.parametrize(
    ("old", "new", "modes"),
    [
        (r"/?\z {", " {", {}),
        (r"/?\z {", "/?$ {", {}),
        ("search_reads$uri$is_args$args", "search_reads", {}),
        ("if ($search_refused)", "if ($never)", {}),
        ("limit_except GET POST {\n            deny all;", "limit_except GET POST {", {}),
        ("limit_except POST {\n            deny all;", "limit_except POST {", {}),
        ("(?!admin/)", "", {}),
        (r"[\w-]+/", "[^/]+/", {}),
        (" backup", "", {}),
        ("location / {\n        return 403;", "location / {\n proxy_pass http://search_reads;", {}),
        ("non_idempotent", "", {"solr2": "503"}),
        ("error timeout http_502 http_503 http_504 non_idempotent", "off", {"solr2": "dead"}),
        ("http://search_writes$uri", "http://search_reads$uri", {}),
    ],
    ids=["no anchor", "$", "path as sent", "any parameter", "any method of a read",
         "any method of a write", "admin", "scratch cores", "no reserve", "no default deny",
         "a POST is not tried again", "nothing is tried again", "writes to slaves"],
)
def test_a_weaker_front_is_found_out(files, old, new, modes):
    text = files["search.conf"]
    assert old in text
    weaker = f"map $args $never {{ default 0; }}\n{text.replace(old, new)}"
    posts_first = sorted(REQUESTS, key=lambda request: not request.line.startswith("POST"))
    assert wrong(files | {"search.conf": weaker}, modes, posts_first)


def test_a_master_that_hangs_gets_a_write_once(files):
    write = next(request for request in REQUESTS if request.who == "write")
    with front(files, SOLRS, PORT, {"solr1": "hanging"}) as one:
        assert [role for role, *_ in one.fire(write)] == ["master"]


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("GET /solr/c/select?q=x HTTP/1.1", "read"),
        ("POST /solr/c/update/json/docs HTTP/1.1", "write"),
        ("POST /solr/c/select;x/../update;y HTTP/1.1", "write"),
        ("POST /solr/c/%75pdate HTTP/1.1", "write"),
        ("GET /solr/c/update HTTP/1.1", "nobody"),
        ("GET /solr/c/select?a=b&%71t=x HTTP/1.1", "nobody"),
        ("GET /solr/c/select?shards.qt=x HTTP/1.1", "nobody"),
        ("GET /solr/admin/select HTTP/1.1", "nobody"),
        ("GET /solr/scratch.c/select HTTP/1.1", "nobody"),
        ("GET /solr/c/select", "nobody"),
    ],
)
def test_what_a_solr_would_make_of_it(line, means):
    assert meaning(line) == means


@pytest.mark.parametrize("line", ["reads GET /x", "read", "read GET /x | a | b", "read | x"])
def test_a_line_that_is_none_is_named(line):
    with pytest.raises(Usage, match="mine: line 2: WHO REQUEST LINE"):
        corpus.read(f"# a comment\n{line}\n", "mine")


def test_what_is_sent():
    sent = corpus.request("write  POST /x | <a/> | chunked", "").encoded()
    assert sent == (b"POST /x HTTP/1.1\r\nHost: search\r\nConnection: close\r\n"
                    b"Transfer-Encoding: chunked\r\nContent-Type: text/xml\r\n\r\n"
                    b"4\r\n<a/>\r\n0\r\n\r\n")


# Mutations of the corpus

PIECES = ("/", "//", "/.", "/..", "/../", ";", ";a=b", "..;", "%2e", "%2E%2e", "%2f", "%5c", "\\",
          "%3b", "%3f", "?", "&", "#", "%", "%00", "%0a", "%0d%0a", "%25", "%20", "\t", "\x7f", "ä",
          "update", "/update", "select", "/select", "qt=/update", "&shards=x", "stream.body=x",
          "admin/", "solr/", "replication", "HTTP/1.1")
LET_THROUGH = [one for one in REQUESTS if one.who != "nobody"]
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "get", "POST ", "UPDATE")


@st.composite
def mutated(draw):
    """A request of the corpus with up to four changes."""
    sent = draw(st.sampled_from(REQUESTS) | st.sampled_from(LET_THROUGH))
    method, _, line = sent.line.partition(" ")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(line)))
        line = draw(st.sampled_from((
            f"{line[:at]}{draw(st.sampled_from(PIECES))}{line[at:]}",
            f"{line[:at]}{line[at + 1:]}",
            f"{line[:at]}{''.join(f'%{ord(one):02x}' for one in line[at:at + 1])}{line[at + 1:]}",
            f"{line[:at]}{line[at:at + 1].swapcase()}{line[at + 1:]}",
        )))
    method = draw(st.sampled_from((method, method, method, *METHODS)))
    return Request("fuzz", f"{method} {line}", sent.body, sent.chunked)


@pytest.fixture(scope="module")
def running(files):
    with front(files, SOLRS, PORT) as one:
        yield one


def test_20000_mutations_reach_nobody_that_they_are_not_for(running):
    reached = []

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(requests=st.lists(mutated(), min_size=50, max_size=50))
    def fire(requests):
        for request in requests:
            heard = running.fire(request)
            reached.append(corpus.reached(heard))
            assert not list(judge(request, heard, running.modes())), request

    fire()
    counts = Counter(reached)
    assert len(reached) >= 20_000
    assert min(counts["slave"], counts["master"], counts["nobody"]) > 100, counts


def test_without_a_slave_reads_reach_the_master(files):
    reads = [request for request in REQUESTS if request.who == "read"]
    assert not wrong(files, {slave.name: "dead" for slave in SLAVES}, reads)


def test_the_same_request_is_for_somebody_else(files):
    read = next(request for request in REQUESTS if request.who == "read")
    assert wrong(files, requests=[replace(read, who="nobody")]) == [
        "is for nobody, reached slave"]
