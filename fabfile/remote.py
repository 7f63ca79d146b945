"""One command on a host, over an open connection: what it says, how it ends, how it is ended."""

import contextlib
import io
import itertools
import os
import threading
import time

from .env import env
from .errors import Failed, Interrupted, Stop, Unreachable
from .shell import line
from .ssh import LOST

CHUNK = 32768
MARK = "FAB_RUN"  # in the environment of each command, to find it again on its host
RUN = f"{os.getpid()}-{time.time_ns():x}"
NUMBERS = itertools.count(1)


class Patience:
    """How long a command may take, how long it may be silent, and that Ctrl-C ends it."""

    def __init__(self, deadline, cancelled):
        self.deadline = deadline or env.fleet.deadline
        self.cancelled = cancelled
        self.started = self.heard = time.monotonic()

    def renew(self):
        """Something was said, or taken."""
        self.heard = time.monotonic()

    def check(self):
        """Interrupted or Failed where it is at an end."""
        now = time.monotonic()
        if self.cancelled.is_set():
            raise Interrupted("ended by Ctrl-C")
        if now - self.started > self.deadline:
            raise Failed(f"not finished within {self.deadline} s")
        if now - self.heard > env.fleet.silence:
            raise Failed(f"no output for {env.fleet.silence} s")


class Remote:
    """One command running on a host over an open Connection; run() is its whole life."""

    def __init__(self, connection, command, *, stdin=None, gate=None, deadline=None,
                 cancelled=None):
        self.connection = connection
        self.mark = new_mark()
        self.command = f"{line('export {}={}; echo {};', MARK, self.mark, self.mark)} {command}"
        self.stdin = stdin
        self.gate = gate
        self.patience = Patience(deadline, cancelled or threading.Event())
        self.output = {"login": bytearray(), "stdout": bytearray(), "stderr": bytearray()}
        self.begun = False
        self.woken = threading.Event()

    def run(self, *, on_output=lambda name, data: None, on_sent=lambda count, total: None):
        """(exit code, stdout, stderr) as int and text. Failed, Unreachable or Interrupted if none.

        A lost link, a signal or a missing exit status is a failure, never a success.
        """
        self.on_output = on_output
        try:
            channel = self.connection.transport.open_session(timeout=env.fleet.connect_timeout)
            channel.in_buffer.set_event(self.woken)
            channel.in_stderr_buffer.set_event(self.woken)
            channel.exec_command(self.command)
        except LOST as error:
            self.connection.close()
            raise Unreachable(f"the link was lost: {str(error) or 'closed'}") from error
        with channel:
            self._feed(channel, on_sent)
            self._follow(channel)
            return self._status(channel), self._text("stdout"), self._text("stderr")

    def _text(self, name):
        return self.output[name].decode(errors="replace")

    def _feed(self, channel, on_sent):
        """Standard input, sent from a thread of its own: output is read meanwhile."""
        if self.gate:
            return threading.Thread(target=self._send_word, args=[channel], daemon=True).start()
        if self.stdin is None:
            return channel.shutdown_write()
        source = io.BytesIO(self.stdin) if isinstance(self.stdin, bytes) else self.stdin.open("rb")
        total = source.seek(0, os.SEEK_END)
        source.seek(0)
        on_sent(0, total)
        sender = (channel, source, lambda count: on_sent(count, total))
        threading.Thread(target=self._send, args=sender, daemon=True).start()

    def _send(self, channel, source, on_sent):
        try:
            with source:
                while chunk := source.read(CHUNK):
                    channel.sendall(chunk)
                    self.patience.renew()
                    on_sent(len(chunk))
            channel.shutdown_write()
        except OSError:
            pass  # the command ended without reading it all: its exit status says why

    def _send_word(self, channel):
        word = self.gate.word()
        with contextlib.suppress(OSError):
            channel.sendall(word)
            channel.shutdown_write()

    def _follow(self, channel):
        """Reads until the command has ended; enforces the deadline, silence and Ctrl-C."""
        while not (channel.status_event.is_set() and self._drained(channel)):
            if self._read(channel):
                self.patience.renew()
                continue
            with ending(self.connection, self.mark):
                self.patience.check()
            if channel.closed or not channel.transport.is_active():
                break
            self.woken.wait(0.05)
        while self._read(channel):
            pass

    def _drained(self, channel):
        return channel.eof_received or channel.closed

    def _read(self, channel):
        found = False
        if channel.recv_ready():
            found = self._take("stdout" if self.begun else "login", channel.recv(CHUNK))
        if channel.recv_stderr_ready():
            found = self._take("stderr", channel.recv_stderr(CHUNK)) or found
        return found

    def _take(self, name, data):
        self.output[name] += data
        if name != "login":
            self.on_output(name, data)
            if self.gate:
                self.gate.hear(self.mark, self.output["stdout"])
        elif data:
            self._look_for_the_mark()
        return bool(data)

    def _look_for_the_mark(self):
        """What a login shell says before the command is no answer of the command."""
        said, mark, answer = self.output["login"].partition(f"{self.mark}\n".encode())
        if mark:
            self.begun, self.output["login"] = True, said
            self._take("stdout", bytes(answer))

    def _status(self, channel):
        status = exit_status(channel)
        if not self.begun:
            said = " ".join((self._text("login") + self._text("stderr")).split())
            raise Failed(f"its login shell did not run the command: {said[-200:] or 'no word'}")
        return status


def exit_status(channel):
    """A command's exit status. Unreachable or Failed if there is none: that is never a success."""
    if channel.status_event.is_set() and channel.exit_status >= 0:
        return channel.exit_status
    lost = not channel.transport.is_active()
    kind, why = (Unreachable, "the link was lost") if lost else (Failed, "it was killed")
    raise kind(f"no exit status: {why} before the command ended")


def new_mark():
    """What stands in the environment of one command, to find it again on its host."""
    return f"{RUN}-{next(NUMBERS)}."  # the dot tells the first from the tenth


@contextlib.contextmanager
def ending(connection, mark):
    """A Stop in this block ends the command of `mark`; Unreachable if its host does not answer."""
    try:
        yield
    except Stop as stop:
        if end_work(connection, mark):
            raise
        connection.close()
        raise Unreachable(f"{stop}, and the host does not answer") from stop


def end_work(connection, mark):
    """Ends what a command has running on its host: TERM, again as what runs may start more, and
    KILL for what is left after 5 s.

    Whether the host answered; where it did not, its own lease and deadlines end what is left.
    """
    script = (  # no command line has NAME=mark in it here: it must not find itself
        f"end() {{ found=''; for e in $(echo {MARK}=$0 | grep -slzFf - /proc/[0-9]*/environ "
        "/proc/[0-9]*/cmdline); do found=yes; e=${e#/proc/}; kill -$1 ${e%/*}; done; }; "
        "for turn in 1 2 3 4 5 6 7 8 9 10; do end TERM; [ $found ] || exit; sleep 0.5; done; "
        "end KILL"
    )
    try:
        channel = connection.transport.open_session(timeout=5)
        channel.exec_command(line("sh -c {} {} 2>/dev/null", script, mark))
        return channel.status_event.wait(10)
    except (*LOST, AttributeError):
        return False
