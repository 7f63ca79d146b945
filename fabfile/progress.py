"""Listens to the fleet's events and prints them, as plain lines or JSON."""

import json
import os
import sys
import threading
from contextlib import suppress

# What would ring, move the cursor or hide text; colours (ESC) stay, as over plain ssh.
CONTROLS = dict.fromkeys({*range(32), 127} - set(b"\t\x1b"))


class Plain:
    """A line a step, `host | text` for what hosts say; no terminal needed."""

    def __init__(self, stream):
        self.stream = stream
        self.lock = threading.RLock()

    def __call__(self, event):
        with self.lock:
            getattr(self, f"on_{event.kind}", lambda event: None)(event)

    def on_say(self, event):
        start = f"{event.host.name} | " if event.host else ""
        texts = str(event.data).splitlines() or [""]
        self.lines([start + text.translate(CONTROLS) for text in texts])

    def on_end(self, event):
        if not event.step or not event.data:
            return
        failed = event.data.failed
        count = f"{len(event.data) - len(failed)}/{len(event.data)}" if failed else len(event.data)
        plural = "" if len(event.data) == 1 else "s"
        names = f"  failed: {' '.join(host.name for host in failed)}" if failed else ""
        self.lines([f"{event.step:<10} {count} host{plural} ok  {event.seconds:.2f} s{names}"])

    def on_table(self, event):
        from .table import table_lines  # when there is one: Rich takes a while to load

        self.lines(table_lines(event.step, *event.data))

    def lines(self, texts):
        self.stream.write("".join(f"{text}\n" for text in texts))
        self.stream.flush()

    def close(self):
        """Nothing is open."""


class Json:
    """One JSON object a line on standard output, nothing else."""

    def __init__(self, stream):
        self.stream = stream
        self.lock = threading.Lock()

    def __call__(self, event):
        if event.kind in ("begin", "host", "sent") or self.is_protocol(event):
            return
        entry = {"event": event.kind, "step": event.step, "host": getattr(event.host, "name", None)}
        entry |= getattr(self, f"of_{event.kind}")(event)
        text = json.dumps({key: value for key, value in entry.items() if value not in (None, "")})
        with self.lock:
            self.stream.write(f"{text}\n")
            self.stream.flush()

    def is_protocol(self, event):
        """Whether it is what a host's program tells ours; people get it as a table."""
        return event.kind == "output" and event.data[0] == "stdout"

    def of_say(self, event):
        return {"text": event.data}

    def of_output(self, event):
        name, data = event.data
        return {"stream": name, "text": data.decode(errors="replace")}

    def of_done(self, event):
        outcome = event.data
        facts = {name: getattr(outcome, name) for name in ("state", "code", "reason")}
        return facts | {"seconds": round(outcome.seconds, 3)}

    def of_end(self, event):
        return {"ok": not event.data.failed, "seconds": round(event.seconds, 3)}

    def of_table(self, event):
        columns, rows = event.data
        return {"rows": [dict(zip(columns, map(str, row), strict=True)) for row in rows]}

    def close(self):
        """Nothing is open."""


class Lasting:
    """A text stream that outlives its reader: `| head`, a full disk or a closed terminal is no
    reason to leave a fleet half-way.
    """

    def __init__(self, stream):
        self.stream = stream or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # `>&-`
        self.stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self._lasting(self.stream.write, text)
        return len(text)

    def flush(self):
        self._lasting(self.stream.flush)

    def _lasting(self, function, *args):
        try:
            function(*args)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if not isinstance(error, BrokenPipeError):
                with suppress(OSError):
                    print(f"fab: no more output: {error.strerror}", file=sys.stderr)


def agreed(question):
    """Whether the person at the terminal says yes; without one it is a no."""
    if not (sys.stdin and sys.stdin.isatty()):
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
