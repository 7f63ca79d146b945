"""The questions asked on a host. A program of its own: sent to `python3 -` there, it reads a JSON
request from its only argument and prints one JSON answer a unit. Only the standard library.

Request: folder (the release), expect (its name, or null), deadline (seconds), units: a list of
{unit, trial?, health?, release?, ask?, processes, folder?, fingerprint?}. Answer: {unit, ok,
reason, processes: [{pid, release, since}]}, and what standing() finds of the folder. `since` is
when the process began, or the master that it was forked from.
"""

import contextlib
import glob
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

TERM = {signal.SIGTERM}


class Unwell(Exception):
    """An answer that is not the one wanted; the text says which."""


class Broken(Unwell):
    """An answer that waiting will not mend."""


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; `host` still names whom to ask for."""

    def __init__(self, host, path, timeout):
        super().__init__(host, timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def get(url, unix_socket=None):
    """The body of a 200 answer, over a new connection; Unwell for anything else."""
    return answer_of(opened(url, unix_socket), url)


def opened(url, unix_socket=None):
    """A new connection to where a URL leads; Unwell if nobody takes it."""
    place = urllib.parse.urlsplit(url).netloc
    if unix_socket:
        connection = SocketConnection(place, unix_socket, timeout=5)
    else:
        connection = http.client.HTTPConnection(place, timeout=5)
    try:
        connection.connect()
    except OSError as error:
        raise Unwell(f"{url}: {error or type(error).__name__}") from None
    return connection


def answer_of(connection, url):
    """The body of a 200 answer over an open connection, which is closed; Unwell for another."""
    try:
        path = urllib.parse.urlsplit(url).path
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(100_000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Unwell(f"{url}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        kind = Unwell if answer.status in (502, 503, 504) else Broken
        raise kind(f"{url}: {answer.status} {' '.join(body.split())[:300]}")
    return body


def processes_in(value):
    """Every {release, pid, master?} in a JSON value, wherever it is."""
    if isinstance(value, dict):
        if "release" in value:
            pid = value.get("pid")
            return [{"pid": pid, "master": value.get("master", pid),
                     "release": str(value["release"])}]
        value = list(value.values())
    if isinstance(value, list):
        return [process for entry in value for process in processes_in(entry)]
    return []


def said(text):
    """The processes that a text with JSON in it tells of; Unwell if there are none."""
    start = min((text.find(mark) for mark in "{[" if mark in text), default=-1)
    try:
        found = processes_in(json.loads(text[start:]) if start >= 0 else None)
    except ValueError:
        found = []
    if not found:
        raise Unwell(f"no release in the answer {text.strip()[-300:]!r}")
    return found


def run(command, folder, timeout):
    """What a command prints, run in the release with its virtualenv first in PATH."""
    with started(command, folder, stdout=subprocess.PIPE, patience=5) as process:
        try:
            output = process.communicate(timeout=timeout)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            raise Unwell(f"no answer within {timeout:.0f} s from: {command}") from None
    if process.returncode:
        raise Unwell(f"exit status {process.returncode} from: {command}\n{output.strip()[-1000:]}")
    return output


@contextlib.contextmanager
def started(command, folder, stdout, patience):
    """The command while it runs, in a process group of its own, from the resolved folder; it is
    ended with the block. A SIGTERM waits while it begins: nothing is left behind by one.
    """
    process, folder = None, resolved(folder)
    try:
        with term_waits():
            process = launch(command, folder, stdout)
        yield process
    finally:
        if process:
            end(process, patience)


@contextlib.contextmanager
def term_waits():
    """A SIGTERM within the block is heard at its end: the probe has one thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def resolved(folder):
    """The folder that a link leads to; Broken if it leads nowhere."""
    if not os.path.isdir(folder):
        raise Broken(f"{os.path.realpath(folder)} is not there")
    return os.path.realpath(folder)


def launch(command, folder, stdout):
    """The command's process, which hears a SIGTERM though we may not just now."""
    path = f"{folder}/.venv/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=folder, env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, TERM),
    )


def end(process, patience):
    """Ends the whole process group: asked first, killed after `patience` seconds.

    A child that was killed may be a zombie for a while, until its host's init looks: not our wait.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(deadline, question, alive=lambda: True):
    """question() again and again until it is not Unwell; at the deadline the last Unwell."""
    while True:
        try:
            return question()
        except Unwell as error:
            if isinstance(error, Broken) or time.monotonic() > deadline or not alive():
                raise
            time.sleep(0.1)


def agreed(processes, expect):
    """The processes, once they all run the release that is expected."""
    wrong = [entry for entry in processes if expect and entry["release"] != expect]
    if wrong:
        raise Unwell(f"pid {wrong[0]['pid']} runs {wrong[0]['release']}, not {expect}")
    return processes


def ask(unit, request, deadline):
    """What the running processes of a unit say they run, once it is healthy."""
    if unit.get("health"):
        until(deadline, lambda: get(unit["health"]))
    if unit.get("release"):
        return until(deadline, lambda: agreed(heard(unit), request["expect"]))
    if unit.get("ask"):
        return until(deadline, lambda: agreed(
            said(run(unit["ask"], request["folder"], timeout=20)), request["expect"]))
    return []


def heard(unit):
    """Each process that answers. Asked in bursts, so that all have their turn: while one is at a
    connection, another takes the next. Where a master is silent still, more time is given.
    """
    url, answers = unit["release"], {}
    for turn in range(8):
        connections = [opened(url) for _ in range(2 * unit["processes"])]
        time.sleep(0.01 * (turn + 1))
        for connection in connections:
            for process in said(answer_of(connection, url)):
                answers[process["pid"]] = process
        masters = {process["master"] for process in answers.values()}
        if turn >= 2 and len(masters) >= unit["processes"]:
            break
    return list(answers.values())


def trial(unit, request, deadline):
    """The staged release, booted beside the live one; without {socket} it only has to end well."""
    if "{socket}" not in unit["trial"]:
        run(unit["trial"], request["folder"], timeout=request["deadline"])
        return []
    with tempfile.TemporaryDirectory(prefix="trial") as place, open(f"{place}/log", "w+b") as log:
        path = f"{place}/s"
        command = unit["trial"].replace("{socket}", shlex.quote(path))
        with started(command, request["folder"], stdout=log, patience=0.3) as process:
            try:
                return answered(unit, request, path, process, deadline)
            except Unwell as error:
                log.seek(0)
                words = log.read().decode(errors="replace").strip()[-1500:]
                raise Unwell(f"{error}\n{words}") from None


def answered(unit, request, path, process, deadline):
    """Health and release of the trial at the socket `path`."""
    def alive():
        return process.poll() is None

    if unit.get("health"):
        until(deadline, lambda: get(unit["health"], path), alive)
    if not unit.get("release"):
        return []
    return agreed(said(until(deadline, lambda: get(unit["release"], path), alive)),
                  request["expect"])


def standing(folder):
    """Which release a `current` leads to, since when, and whether anything was ever deployed there.

    The link is made anew by each switch, and by nothing else.
    """
    beside = os.path.dirname(folder)
    there = os.path.islink(folder) and os.path.isdir(folder)
    return {
        "folder": beside,
        "current": os.path.basename(os.readlink(folder)) if there else None,
        "switched": os.lstat(folder).st_mtime if there else None,
        "deployed": os.path.lexists(folder) or os.path.exists(f"{beside}/state/line"),
    }


def began(pid):
    """When a process began, by this host's clock; None for one that can't be seen. It is known to a
    tick, and rounded up: what begins right after a switch is not older.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + (ticks + 1) / os.sysconf("SC_CLK_TCK")


def holding(text, folder):
    """The release that has this text in its files: the one that `folder`, a `current`, leads to, or
    else the newest. The text, where none has.
    """
    releases = sorted(glob.glob(f"{os.path.dirname(folder)}/releases/[0-9]*[0-9]"), reverse=True)
    for release in (os.path.realpath(folder), *releases):
        for path in filter(os.path.isfile, glob.glob(f"{release}/**", recursive=True)):
            with open(path, "rb") as file:
                if text.encode() in file.read():
                    return os.path.basename(release)
    return text


def seen(process, unit, folder):
    """What is told of a process. A fingerprint stands for the release that has it in its files."""
    release = process["release"]
    if unit.get("fingerprint"):
        release = holding(release, folder)
    return {"pid": process["pid"], "since": began(process["master"]), "release": release}


def told(unit, request):
    """The answer to one unit. Where nothing was ever deployed, nobody is waited for."""
    folder = unit.get("folder", request["folder"])
    answer = {"unit": unit["unit"], "ok": True, "reason": "", "processes": [], **standing(folder)}
    deadline = time.monotonic() + (request["deadline"] if answer["deployed"] else 0)
    try:
        found = (trial if request["trial"] else ask)(unit, request, deadline)
        answer["processes"] = [seen(process, unit, folder) for process in found]
    except Unwell as error:
        answer.update(ok=False, reason=str(error))
    return answer


def main(request):
    """Answers every unit. Where a release is expected, exits 1 and gives the reasons on stderr."""
    failed = False
    for unit in request["units"]:
        answer = told(unit, request)
        if not answer["ok"]:
            print(f"{unit['unit']}: {answer['reason']}", file=sys.stderr)
        failed = failed or not answer["ok"]
        print(json.dumps(answer), flush=True)
    return 1 if failed and request["expect"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started for us ends with us
    sys.exit(main(json.loads(sys.argv[1])))
