"""The questions asked on a host. A program of its own: sent to `python3 -` there, it reads a JSON
request from its only argument and prints one JSON answer a unit. Only the standard library.

Request: folder (the release), expect (its name, or null), deadline (seconds), units: a list of
{unit, trial?, health?, release?, ask?, processes}. Answer: {unit, ok, reason, processes: [{pid,
release}]}.
"""

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
    parts = urllib.parse.urlsplit(url)
    if unix_socket:
        connection = SocketConnection(parts.netloc, unix_socket, timeout=5)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request("GET", parts.path, headers={"Connection": "close"})
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
    """Every {release, pid} in a JSON value, wherever it is."""
    if isinstance(value, dict):
        if "release" in value:
            return [{"pid": value.get("pid"), "release": str(value["release"])}]
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
    process = start(command, folder, stdout=subprocess.PIPE)
    try:
        output = process.communicate(timeout=timeout)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise Unwell(f"no answer within {timeout:.0f} s from: {command}") from None
    finally:
        end(process)
    if process.returncode:
        raise Unwell(f"exit status {process.returncode} from: {command}\n{output.strip()[-1000:]}")
    return output


def start(command, folder, stdout):
    """The command, in a process group of its own, from the resolved folder."""
    folder = os.path.realpath(folder)
    if not os.path.isdir(folder):
        raise Broken(f"{folder} is not there")
    path = f"{folder}/.venv/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=folder, env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True,
    )


def end(process, patience=5):
    """Ends the whole process group: asked first, killed after `patience` seconds."""
    for sign, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                return
            process.poll()
            time.sleep(0.02)


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
    """Each process that answers: asked often enough that all of them had their turn."""
    answers = {}
    for _ in range(8 * unit["processes"]):
        for process in said(get(unit["release"])):
            answers[process["pid"]] = process
    return list(answers.values())


def trial(unit, request, deadline):
    """The staged release, booted beside the live one; without {socket} it only has to end well."""
    if "{socket}" not in unit["trial"]:
        run(unit["trial"], request["folder"], timeout=request["deadline"])
        return []
    with tempfile.TemporaryDirectory(prefix="trial") as place, open(f"{place}/log", "w+b") as log:
        path = f"{place}/s"
        command = unit["trial"].replace("{socket}", shlex.quote(path))
        process = start(command, request["folder"], stdout=log)
        try:
            return answered(unit, request, path, process, deadline)
        except Unwell as error:
            log.seek(0)
            words = log.read().decode(errors="replace").strip()[-1500:]
            raise Unwell(f"{error}\n{words}") from None
        finally:
            end(process, patience=0.3)  # nobody else asks it anything


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


def main(request):
    """Answers every unit. Where a release is expected, exits 1 and gives the reasons on stderr."""
    failed = False
    for unit in request["units"]:
        deadline = time.monotonic() + request["deadline"]
        answer = {"unit": unit["unit"], "ok": True, "reason": "", "processes": []}
        try:
            question = trial if request["trial"] else ask
            answer["processes"] = question(unit, request, deadline)
        except Unwell as error:
            answer.update(ok=False, reason=str(error))
            print(f"{unit['unit']}: {error}", file=sys.stderr)
        failed = failed or not answer["ok"]
        print(json.dumps(answer), flush=True)
    return 1 if failed and request["expect"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started for us ends with us
    sys.exit(main(json.loads(sys.argv[1])))
