"""The stand-in for a team's application in a rehearsal: it says which release it runs, and fails
in the way that `stamp`, a file of the release, names.

    serve.py fd                     answers HTTP on the socket that is its standard input
    serve.py PATH                   the same on a Unix socket: the trial
    serve.py worker NAME, ask NAME  a process without HTTP, and the question which release it runs
    serve.py check, migrate, drain  well, or not
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WAY = HERE.joinpath("stamp").read_text().split()[1]
FACTS = {"release": HERE.name, "pid": os.getpid()}
LIVE = sys.argv[1] in ("fd", "worker")

if WAY == "crash" or (WAY == "crash-live" and LIVE):
    raise SystemExit(f"this release fails on purpose: {WAY}")


def unwell():
    """Why it is, in words: one of the fleet's memcacheds does not answer. None where all do."""
    for host in json.loads(HERE.joinpath("servers.json").read_text()):
        if "memcached" in host["roles"]:
            try:
                ask_memcached(host["private_dns"])
            except OSError as error:
                return f"memcached {host['name']} does not answer: {error}"


def ask_memcached(address):
    with socket.create_connection((address, 11211), timeout=3) as connection:
        connection.sendall(b"version\r\n")
        if not connection.recv(100).startswith(b"VERSION"):
            raise OSError("no version")


def listen(path):
    """A new Unix socket there, in place of an old one."""
    Path(path).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    return listening


def serve(listening):
    """Answers until it is told to end."""
    from web import Server  # where it is needed: it takes a while to load

    with Server(listening, FACTS, unwell, sickens=WAY == "sicken" and LIVE) as server:
        server.serve_forever(poll_interval=0.05)


def worker(path):
    """Tells everybody who connects."""
    listening = listen(path)
    while True:
        with listening.accept()[0] as connection:
            connection.sendall(json.dumps(FACTS).encode())


def ask(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        sys.stdout.write(connection.recv(1000).decode())


def check():
    if reason := unwell():
        raise SystemExit(reason)


def drain():
    """There is nothing that would have to end first."""


def migrate():
    """Takes its time where it is told to; two at once would be the end of a database."""
    at_work = Path("../../shared/migrating")
    if at_work.exists():
        raise SystemExit("two migrations at the same time")
    at_work.touch()
    time.sleep(6 if WAY == "slowly-migrated" else 0)
    at_work.unlink()
    if WAY == "half-migrated":
        raise SystemExit("the second half of the migration failed on purpose")


def main(verb, name=""):
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"{name}.sock")
    if verb in ("worker", "ask"):
        return {"worker": worker, "ask": ask}[verb](path)
    if verb in ("check", "drain", "migrate"):
        return {"check": check, "drain": drain, "migrate": migrate}[verb]()
    serve(socket.socket(fileno=0) if verb == "fd" else listen(verb))


main(*sys.argv[1:])
