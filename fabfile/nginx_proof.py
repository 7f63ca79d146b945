"""The search front proved: a real nginx with the rendered configuration, in front of stubs that
record what reaches them. Nothing listens on an address: all of it is Unix sockets in a scratch
folder, so that it needs neither root nor a free port."""

import os
import re
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from .corpus import judge
from .errors import Failed, NotInstalled

SOON = 1  # second that stands for a time-out, so that a proof does not take minutes
ANSWER = "HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
MODES = ("dead", "hanging", "503")


class Handler(socketserver.StreamRequestHandler):
    """One request to a stub."""

    timeout = 5

    def handle(self):
        line = self.rfile.readline(65537).decode("latin-1").rstrip("\r\n")
        if not line:
            return
        length = 0
        while (header := self.rfile.readline(65537).strip().lower()) != b"":
            if header.startswith(b"content-length:"):
                length = int(header.partition(b":")[2])
        self.rfile.read(length)
        with suppress(OSError):  # nginx has not waited
            self.server.stub.answer(line, self.wfile)


class Stub:
    """What stands for one Solr, on a socket: `mode` is up, dead, hanging or 503."""

    def __init__(self, role, path, heard, mode):
        self.role, self.heard, self.mode, self.server = role, heard, mode, None
        if mode != "dead":
            self.server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
            self.server.daemon_threads, self.server.stub = True, self
            threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, line, out):
        """Records the request line, and answers as the mode has it."""
        self.heard.append((self.role, self.mode, line))
        if self.mode == "hanging":
            time.sleep(1.5 * SOON)
        status = "503 Service Unavailable" if self.mode == "503" else "200 OK"
        out.write(ANSWER.format(status).encode())

    def close(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()


class Front:
    """A running nginx and its stubs."""

    def __init__(self, prefix, stubs, heard):
        self.prefix, self.stubs, self.heard = prefix, stubs, heard

    def fire(self, request):
        """What one request came to, once it was answered: (role, mode, request line) of each."""
        self.heard.clear()
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(f"{self.prefix}/run/search.sock")
            link.sendall(request.encoded())
            while link.recv(65536):
                pass
        return list(self.heard)

    def modes(self):
        """Pairs (role, mode) of its stubs."""
        return [(stub.role, stub.mode) for stub in self.stubs]


@contextmanager
def front(files, solrs, port, modes=()):
    """A Front for the rendered files of a host; `solrs` are pairs (host, role), `port` Solr's,
    `modes` {name of a host: mode} of those that are not up.
    """
    heard, hangs = [], "hanging" in dict(modes).values()
    with tempfile.TemporaryDirectory(prefix="search") as prefix:
        for folder in ("run", "logs", "nginx"):
            Path(prefix, folder).mkdir()
        for name, text in files.items():
            text = on_sockets(text, solrs, port)
            Path(prefix, "nginx", name).write_text(impatient(text) if hangs else text)
        stubs = [Stub(role, Path(prefix, f"run/{host.name}.sock"), heard,
                      dict(modes).get(host.name, "up")) for host, role in solrs]
        try:
            with running(prefix):
                yield Front(prefix, stubs, heard)
        finally:
            for stub in stubs:
                stub.close()


def on_sockets(text, solrs, port):
    """A configuration that listens on Unix sockets, and reaches its Solrs by them."""
    text = re.sub(rf"(\blisten) +[^\s;]*:{port}\b", r"\1 unix:run/search.sock", text)
    text = re.sub(r"(\blisten) +[^\s;]*:(\d+)\b", r"\1 unix:run/\2.sock", text)
    for host, _ in solrs:
        place = re.escape(f"{host.private_dns}:{port}")
        text = re.sub(rf"(\bserver) +{place}", rf"\1 unix:run/{host.name}.sock", text)
    return text


def impatient(text):
    """A configuration whose time-outs are short. Only where a Solr hangs: one that lives may be
    slow on a busy machine.
    """
    return re.sub(r"(proxy_(?:read|connect)_timeout) \w+", rf"\1 {SOON}s", text)


@contextmanager
def running(prefix):
    """nginx in the foreground, ended with the block. NotInstalled without one here."""
    workers = "user root; " if os.geteuid() == 0 else ""  # who may open the scratch folder
    command = ["nginx", "-p", prefix, "-c", "nginx/nginx.conf", "-e", "logs/error.log",
               "-g", f"{workers}daemon off; worker_shutdown_timeout 1s;"]
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    try:
        process = subprocess.Popen(command, cwd=prefix, env={"PATH": path},
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise NotInstalled("nginx is not here to prove: apt-get install nginx-light") from None
    try:
        wait_for_socket(process, f"{prefix}/run/search.sock")
        yield
    finally:
        process.terminate()
        process.communicate()


def wait_for_socket(process, path):
    """Failed, in nginx's own words, if it ends instead."""
    deadline = time.monotonic() + 10
    while not answers(path):
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            raise Failed(f"nginx did not start\n{process.communicate()[1].strip()}")
        time.sleep(0.02)


def answers(path):
    """Whether somebody listens on a Unix socket: it is there a moment before."""
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(path) == 0


def scenarios(solrs):
    """Title and {name of a host: mode} of each state of the fleet to prove: all up, one after the
    other away in each way, no slave at all.
    """
    yield "all up", {}
    for host, _ in solrs:
        for mode in MODES:
            yield f"{host.name} {mode}", {host.name: mode}
    yield "no slave", {host.name: "dead" for host, role in solrs if role == "slave"}


def prove(files, solrs, port, requests, say):
    """Fires all requests in each scenario; pairs (request, what it came to) with all up.

    Failed with all that is wrong, scenario by scenario.
    """
    def run(scenario):
        with front(files, solrs, port, scenario[1]) as one:
            return [(request, one.fire(request), one.modes()) for request in requests]

    titles = [title for title, _ in scenarios(solrs)]
    with ThreadPoolExecutor(4) as pool:  # they wait, more than they work
        found = dict(zip(titles, pool.map(run, scenarios(solrs)), strict=True))
    wrong = [problem for title in titles for problem in summed_up(title, found[title], say)]
    if wrong:
        raise Failed("\n".join(wrong))
    return [(request, heard) for request, heard, _ in found[titles[0]]]


def summed_up(title, answers, say):
    """What is wrong in one scenario, and a line about it."""
    wrong = [f"{title}: {request.line}: {problem}" for request, heard, modes in answers
             for problem in judge(request, heard, modes)]
    say(f"{title:<15} {len(answers)} requests, {len(wrong)} wrong")
    return wrong
