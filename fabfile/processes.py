"""Processes of this machine, each known by its pid and its birth, so that a recycled pid is
never taken for it; who listens on a port; and waiting with a deadline."""

import contextlib
import ipaddress
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# The shell writes the record, then becomes the program: there is no moment in which a kill of
# the starter leaves a process that nobody knows of.
RECORD = """
read -r boot < /proc/sys/kernel/random/boot_id
read -r stat < /proc/$$/stat
echo "$$ $boot ${stat##*) }" > "$0"
exec "$@"
"""
# Where /proc/PID/stat says it, counted from the state on.
STATE, PARENT, SESSION, BIRTH = 0, 1, 3, 19
LISTENS = "0A"


@dataclass(frozen=True)
class Process:
    """A process: `birth` is the clock tick of its start, `boot` says since which boot."""

    pid: int
    birth: int
    boot: str

    def alive(self):
        """Whether this very process, not just its number, is still there. A zombie is not."""
        stat = read_stat(self.pid)
        return bool(stat) and self == Process(self.pid, int(stat[BIRTH]), boot_id())

    def send(self, number):
        """Send a signal. Held by a descriptor, the pid cannot be recycled in between."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


def boot_id():
    """What tells this boot of the machine from any other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid):
    """The words of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return words if words and words[STATE] not in "ZX" else []


def pids():
    """The number of every process there is."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def start(argv, *, record, log, env, cwd):
    """Start `argv` in a session of its own, its pid and birth in the file `record`.
    What it prints is added to the file `log`."""
    record.unlink(missing_ok=True)
    command = ["setsid", "--fork", "/bin/sh", "-c", RECORD, record, *argv]
    with open(log, "ab") as out:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, check=True
        )


def recorded(record):
    """The Process that start() wrote down, alive or not; None if there is no whole record."""
    try:
        pid, boot, *stat = record.read_text().split()
        return Process(int(pid), int(stat[BIRTH]), boot)
    except (OSError, ValueError, IndexError):
        return None


def family(leaders, mark=None):
    """All that came from `leaders`: members of their sessions, what has `mark` (NAME=value) in
    its environment, and the descendants of all these."""
    table = {pid: stat for pid in pids() if (stat := read_stat(pid))}
    found = {pid for pid in table if in_session(table, pid, leaders) or has(pid, mark)}
    while more := {pid for pid in table.keys() - found if int(table[pid][PARENT]) in found}:
        found |= more
    boot = boot_id()
    return {Process(pid, int(table[pid][BIRTH]), boot) for pid in found}


def in_session(table, pid, leaders):
    """Whether one of `leaders` made the session of `pid`, be that leader alive or gone."""
    session, birth = int(table[pid][SESSION]), int(table[pid][BIRTH])
    return any(
        session == leader.pid and (leader.alive() or was_led(table, leader, birth))
        for leader in leaders
    )


def was_led(table, leader, birth):
    """Whether a process with this birth can be a survivor of `leader`: not if the leader's
    number was given to another since, nor if it is older, or the machine booted."""
    return leader.pid not in table and leader.boot == boot_id() and leader.birth <= birth


def has(pid, mark):
    """Whether the process was started with `mark` in its environment, as far as one may see."""
    if mark is None:
        return False
    try:
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def end(leaders, mark=None, *, patience=10):
    """Ask `leaders` to end; after `patience` seconds kill what is left of their family.
    Returns what is there all the same."""
    known = family(leaders, mark)  # while it can still be seen whose children they are
    for leader in leaders:
        leader.send(signal.SIGTERM)
    wait_for(lambda: not any(leader.alive() for leader in leaders), patience)
    wait_for(lambda: not kill(known | family(leaders, mark)), patience)
    return [process for process in known | family(leaders, mark) if process.alive()]


def kill(processes):
    """Kill those that are alive, which are returned: they may have had children just then.

    The eldest first: a PostgreSQL that sees a child killed makes others, in sessions of their own.
    """
    eldest_first = sorted(processes, key=lambda process: (process.birth, process.pid))
    living = [process for process in eldest_first if process.alive()]
    for process in living:
        process.send(signal.SIGKILL)
    return living


def wait_for(question, seconds):
    """Ask until the answer is true, which is returned, or the seconds have passed."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.03)
    return answer


def holder(address, port):
    """Who listens on address:port, in words; None if nobody does."""
    sockets = listeners(address, port)
    if not sockets:
        return None
    pid = next((pid for pid in pids() if sockets & open_files(pid)), None)
    if pid is None:
        return "a process of another user"
    return f"process {pid} ({command_line(pid)[:100]})"


def command_line(pid):
    """What a process was started as, or calls itself."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
        return " ".join(text.split())
    return "it has ended since"


def listeners(address, port):
    """The sockets, as /proc/PID/fd names them, that listen on address:port or on any:port."""
    wildcards = ("0.0.0.0", "::")
    places = {f"{kernel_hex(each)}:{port:04X}" for each in (address, *wildcards)}
    rows = [row.split() for table in ("tcp", "tcp6") for row in socket_table(table)]
    return {f"socket:[{row[9]}]" for row in rows if row[1] in places and row[3] == LISTENS}


def socket_table(name):
    try:
        return Path("/proc/net", name).read_text().splitlines()[1:]
    except OSError:
        return []  # no IPv6 here


def kernel_hex(address):
    """An address as /proc/net/tcp writes it: hexadecimal, each four bytes turned round."""
    packed = ipaddress.ip_address(address).packed
    return b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4)).hex().upper()


def open_files(pid):
    """What the descriptors of a process point to, as far as one may see."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
