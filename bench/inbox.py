"""How many inbox writes a second the site's own functions reach, against redis-benchmark's figure
for a pipelined ZADD in the same run: `uv run python bench/inbox.py`. Real Redis, two processes.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "example"
ADDRESS = "127.0.0.1"
PEOPLE = 5000
SECONDS = 5
WRITERS = 2


def in_the_sites_virtualenv():
    """Starts this program again with what the site's lock says."""
    words = ["uv", "run", "--no-project", "--quiet", "--with-requirements",
             str(EXAMPLE / "requirements.lock"), "python", __file__]
    os.execvpe("uv", words, os.environ | {"BENCH_INBOX": "1"})


@contextmanager
def redis_server():
    """A Redis of its own on a free port; yields the port."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port = probe.getsockname()[1]
    program = shutil.which("redis-server") or sys.exit("redis-server is not installed")
    words = [program, "--bind", ADDRESS, "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def wait_for(port):
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex((ADDRESS, port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("redis-server does not answer")


def benchmark(port) -> float:
    """ZADDs a second of redis-benchmark, a thousand in a pipeline, as many clients as we have."""
    words = ["redis-benchmark", "-h", ADDRESS, "-p", str(port), "-P", "1000", "-c", str(WRITERS),
             "-n", "2000000", "-r", str(PEOPLE), "--csv",
             "ZADD", "bench:__rand_int__", "__rand_int__", "__rand_int__"]
    last = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return float(last.split(",")[1].strip('"'))


def write(number, begin, counts):
    """One writer: delivers activity after activity to everybody, in chunks."""
    from stream import inbox

    inbox.connection.cache_clear()
    inbox.script.cache_clear()
    begin.wait()
    end, count, activity = time.monotonic() + SECONDS, 0, 1_000_000 + number
    while time.monotonic() < end:
        for first in range(1, PEOPLE + 1, inbox.CHUNK):
            inbox.deliver(activity, range(first, first + inbox.CHUNK))
            count += inbox.CHUNK
        activity += WRITERS
    counts.put(count / SECONDS)


def writes() -> float:
    """Inbox writes a second, all writers together, into inboxes that are full."""
    fork = get_context("fork")
    begin, counts = fork.Event(), fork.Queue()
    writers = [fork.Process(target=write, args=(n, begin, counts)) for n in range(WRITERS)]
    for process in writers:
        process.start()
    begin.set()
    total = sum(counts.get() for _ in writers)
    for process in writers:
        process.join()
    return total


def memory_of_an_entry() -> float:
    """Fills every inbox; the bytes that Redis needs for each entry."""
    from stream import inbox

    used = inbox.connection().info("memory")["used_memory"]
    keys = range(1, inbox.KEEP + 1)
    for person in range(1, PEOPLE + 1):
        inbox.fill(person, keys)
    now = inbox.connection().info("memory")["used_memory"]
    return (now - used) / (PEOPLE * inbox.KEEP)


def reading() -> float:
    """Milliseconds for a page of 20, median of 200, with the rows from SQLite in memory."""
    from django.test.runner import DiscoverRunner

    DiscoverRunner(verbosity=0).setup_databases()
    from people.models import Follow, Person
    from stream import activities, inbox
    from stream.models import Activity

    author, reader = Person.objects.filter(username__in=["mara", "sam"]).order_by("username")
    Follow.objects.get_or_create(follower=reader, followed=author)
    Activity.objects.bulk_create(Activity(actor=author, person=reader) for _ in range(500))
    inbox.connection().flushdb()  # the writers' activities are in no database
    activities.rebuild(reader.pk)
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        found, _older = activities.read(reader.pk)
        times.append(time.perf_counter() - begun)
        assert len(found) == 20
    return sorted(times)[100] * 1000


def main():
    if "BENCH_INBOX" not in os.environ:
        in_the_sites_virtualenv()
    with redis_server() as port:
        os.environ |= {"INBOX_URL": f"redis://{ADDRESS}:{port}/0",
                       "DJANGO_SETTINGS_MODULE": "conference.settings"}
        sys.path.insert(0, str(EXAMPLE))
        import django

        django.setup()
        entry = memory_of_an_entry()
        ours, theirs = writes(), benchmark(port)
        print(f"inbox writes       {ours:>12,.0f} /s  ({WRITERS} processes, {PEOPLE} full inboxes)")
        print(f"redis-benchmark    {theirs:>12,.0f} /s  (ZADD, 1,000 in a pipeline)")
        print(f"ratio              {ours / theirs:>12.2f}")
        print(f"a page of 20       {reading():>12.2f} ms")
        print(f"memory of an entry {entry:>12.1f} bytes")


if __name__ == "__main__":
    main()
