"""The stand-in over HTTP: which release it runs, and whether it is well."""

import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED = time.monotonic()


class Server(ThreadingHTTPServer):
    """On a socket that is there; TERM ends it after the requests in flight. Visitors get `facts`;
    others do if `unwell()` finds nothing. It sickens after a while, or does not.
    """

    daemon_threads = False

    def __init__(self, listening, facts, unwell, *, sickens):
        super().__init__(("", 0), Answer, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.socket.setblocking(False)  # another process may have been quicker to accept
        self.facts, self.unwell, self.sickens = facts, unwell, sickens
        signal.signal(signal.SIGTERM, self.end)

    def end(self, number, frame):
        threading.Thread(target=self.shutdown).start()


class Answer(BaseHTTPRequestHandler):
    """The same at any path."""

    def do_GET(self):
        if self.server.sickens and time.monotonic() > STARTED + 7:
            return self.answer(500, {"unwell": "on purpose"})
        reason = None if self.path.endswith("?visitor") else self.server.unwell()
        self.answer(503 if reason else 200, {"unwell": reason} if reason else self.server.facts)

    def answer(self, status, facts):
        body = json.dumps(facts).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        """Nothing is logged."""
