"""Visitors of a site: requests one after the other, which are counted with what they got."""

import http.client
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager


class Visitors:
    """Come in by `doors`, host → port, in turn; those in `closed` are known to be dead."""

    def __init__(self, doors):
        self.doors = dict(doors)
        self.closed = set()
        self.failures = []
        self.served = Counter()

    @contextmanager
    def at_work(self):
        """They come as long as the block lasts."""
        over = threading.Event()
        browsing = threading.Thread(target=self.browse, args=(over,), daemon=True)
        browsing.start()
        try:
            yield self
        finally:
            over.set()
            browsing.join()

    def browse(self, over):
        while not over.wait(0.08):
            for host, port in self.doors.items():
                if host not in self.closed:
                    self.visit(host, port)

    def visit(self, host, port):
        """One request, on a connection of its own."""
        try:
            self.served[get(host.private_dns, port)] += 1
        except (OSError, ValueError, http.client.HTTPException) as error:
            if host not in self.closed:
                moment = time.strftime("%T")
                self.failures.append(f"{moment} {host.name}: {error or type(error).__name__}")

    def take(self):
        """(requests, failures, releases seen) since the last time."""
        failures, self.failures = self.failures, []
        served, self.served = self.served, Counter()
        return served.total() + len(failures), failures, set(served)


def get(address, port):
    """The release that answers there. ValueError for an answer that is not 200."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/?visitor", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"answer {answer.status}")
    return json.loads(body)["release"]
