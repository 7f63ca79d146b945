"""clear_cache against real memcached servers, and against ones that refuse, hang or lie."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager

import memcache
import pytest

from fabfile.cache import figures
from tests.conftest import Team, inventory_of

HOSTS = [("cache1", ["memcached"]), ("cache2", ["memcached"])]
PORT = 11211
STATS = {"get_hits": "3", "cmd_get": "4", "curr_items": "9", "bytes": "1048576", "cmd_flush": "3",
         "limit_maxbytes": "67108864", "evictions": "0", "uptime": "7200", "version": "1.6.18"}


@contextmanager
def memcached(address, *options):
    program = shutil.which("memcached", path=os.environ["PATH"] + ":/usr/bin")
    process = subprocess.Popen([program, "-l", address, "-p", str(PORT), "-u", "nobody", *options])
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex((address, PORT)):
            assert time.monotonic() < deadline, "memcached does not answer"
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


@contextmanager
def stranger(address, talk):
    """A server that is no memcached: `talk(socket)` for each connection."""
    server = socket.create_server((address, PORT))
    threading.Thread(target=serve, args=(server, talk), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)  # or the thread that accepts would keep the port
        server.close()


def serve(server, talk):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=talk, args=(connection,), daemon=True).start()


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    path = tmp_path_factory.mktemp("caches") / "servers.json"
    return Team(inventory_of(HOSTS, "127.0.4", path))


@pytest.fixture
def first():
    with memcached("127.0.4.1") as process:
        yield process


def test_all_are_flushed_and_proved(team, first):
    client = memcache.Client([f"127.0.4.1:{PORT}"])
    client.set("a", "1")
    with memcached("127.0.4.2"):
        rows = team.json("clear_cache")
    assert client.get("a") is None
    assert {row["host"]: row[""] for row in rows} == {"cache1": "flushed", "cache2": "flushed"}


def test_one_that_is_down_is_named_and_the_other_flushed(team, first):
    output = team.fab("-R", "memcached", "clear_cache", code=5)
    assert "cache1  1" in output or "cache1  0" in output
    assert "fab: cache2: memcached 127.0.4.2:11211: refused" in output


def test_one_that_hangs_is_given_up(team, first):
    with memcached("127.0.4.2") as hanging:
        hanging.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        output = team.fab("clear_cache", code=5)
    assert "cache2: memcached 127.0.4.2:11211" in output
    assert time.monotonic() - started < 15


def test_one_that_only_says_ok_is_found_out(team, first):
    def liar(connection):
        with connection, connection.makefile("rwb", buffering=0) as talk:
            for line in talk:
                if line.startswith(b"stats"):
                    talk.write(b"".join(b"STAT %s %s\r\n" % (name.encode(), text.encode())
                                        for name, text in STATS.items()) + b"END\r\n")
                elif line.startswith(b"get"):
                    key = line.split()[1]
                    talk.write(b"VALUE " + key + b" 0 1\r\n1\r\nEND\r\n")
                elif line.startswith(b"set"):
                    talk.readline()
                    talk.write(b"STORED\r\n")
                else:
                    talk.write(b"OK\r\n")

    with stranger("127.0.4.2", liar):
        output = team.fab("clear_cache", code=1)
    assert "cache2: memcached 127.0.4.2:11211: did not count a flush" in output


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xfe\r\n", b"STAT pid 1\r\nSTAT cmd_fl", b"",
    b"ERROR Too many open connections\r\n"])
def test_what_does_not_answer_as_memcached_does_is_a_failure_of_its_own(team, first, answer):
    def other(connection):
        with connection:
            connection.recv(100)
            connection.sendall(answer)

    with stranger("127.0.4.2", other):
        flushed = team.fab("clear_cache", code=1)
        stats = team.fab("cache_stats", code=1)
    for output in (flushed, stats):
        assert "fab: cache2: memcached 127.0.4.2:11211: answers without its statistics" in output
        assert "cache1  " in output and "Traceback" not in output
    assert "flushed" in flushed


def test_one_that_wants_a_login_says_so(team, first):
    with tempfile.NamedTemporaryFile("w") as logins:
        logins.write("ann:secret\n")
        logins.flush()
        os.chmod(logins.name, 0o644)  # memcached reads it as nobody
        with memcached("127.0.4.2", "-Y", logins.name):
            assert "it wants a login" in team.fab("clear_cache", code=1)


def test_one_that_does_not_flush_is_found_out(team, first):
    with memcached("127.0.4.2", "-F"):
        assert "still has an item from before the flush" in team.fab("clear_cache", code=1)


@pytest.mark.parametrize("name", ["cache2:11211", "::1", "a..b"])
def test_what_is_no_address_is_refused_before_anything_is_flushed(team, first, name):
    client = memcache.Client([f"127.0.4.1:{PORT}"])
    client.set("a", "1")
    output = team.fab("-H", f"cache1,{name}", "clear_cache", code=2)
    assert f"fab: {name}: not a DNS name or an IPv4 address" in output
    assert client.get("a") == "1"


def test_hosts_that_servers_json_does_not_know(team, first):
    output = team.fab("-H", "cache1,127.0.4.9", "clear_cache", code=5)
    assert "127.0.4.9: memcached 127.0.4.9:11211: refused" in output
    assert "cache1" in output


def test_dry_flushes_nothing(team, first):
    client = memcache.Client([f"127.0.4.1:{PORT}"])
    client.set("a", "1")
    assert team.fab("--dry", "clear_cache").splitlines() == ["cache1 | # flush", "cache2 | # flush"]
    assert client.get("a") == "1"


def test_statistics(team, first):
    rows = team.json("-H", "cache1", "cache_stats")
    assert rows[0]["host"] == "cache1" and rows[0]["of"] == "64.0 MB"


def test_figures():
    assert figures(STATS) == ("75.0 %", "9", "1.0 MB", "64.0 MB", "0", "2.0 h", "1.6.18")
