"""The stand-in for a team's application in a rehearsal: it says which release it runs, and fails
in the way that `stamp`, a file of the release, names.

    serve.py fd                     answers HTTP on the socket that is its standard input
    serve.py PATH                   the same on a Unix socket: the trial
    serve.py worker NAME, ask NAME  a process without HTTP, and the question which release it runs
    serve.py check, migrate         well, or not
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
WAY = HERE.joinpath("stamp").read_text().split()[1]
STARTED = time.monotonic()
FACTS = {"release": HERE.name, "pid": os.getpid()}
LIVE = sys.argv[1] in ("fd", "worker")

if WAY == "crash" or (WAY == "crash-live" and LIVE):
    raise SystemExit(f"this release fails on purpose: {WAY}")


class Answer(BaseHTTPRequestHandler):
    """Any path is answered with the facts."""

    def do_GET(self):
        sick = WAY == "sicken" and LIVE and time.monotonic() > STARTED + 7
        body = json.dumps(FACTS).encode()
        self.send_response(500 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        """Nothing is logged."""


class Server(ThreadingHTTPServer):
    """On a socket that is there; TERM ends it after the requests in flight."""

    daemon_threads = False

    def __init__(self, listening):
        super().__init__(("", 0), Answer, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.socket.setblocking(False)  # another process may have been quicker to accept
        signal.signal(signal.SIGTERM, self.end)

    def end(self, number, frame):
        threading.Thread(target=self.shutdown).start()


def listen(path):
    """A new Unix socket there, in place of an old one."""
    Path(path).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    return listening


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
    if verb in ("check", "migrate"):
        return migrate() if verb == "migrate" else None
    with Server(socket.socket(fileno=0) if verb == "fd" else listen(verb)) as server:
        server.serve_forever(poll_interval=0.05)


main(*sys.argv[1:])
