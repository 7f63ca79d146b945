"""Listens to the fleet's events and prints them: live on a terminal, plain lines, or JSON."""

import json
import os
import sys
import threading
from contextlib import suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

# What would ring, move the cursor or hide text; colours (ESC) stay, as over plain ssh.
CONTROLS = dict.fromkeys({*range(32), 127} - set(b"\t\x1b"))
WIDE = 400  # no cell of a table is cut; a narrow terminal wraps its lines


class Plain:
    """A line a step, `host | text` for what hosts say; no terminal needed."""

    def __init__(self, stream):
        self.stream = stream
        plain = {"file": stream, "highlight": False, "emoji": False, "markup": False}
        self.console = Console(**plain)
        self.wide = Console(**plain, width=WIDE)
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
        columns, rows = event.data
        table = Table(title=event.step or None, title_justify="left", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        with self.wide.capture() as captured:
            self.wide.print(table)
        self.lines([text.rstrip() for text in captured.get().splitlines()])

    def lines(self, texts):
        self.stream.write("".join(f"{text}\n" for text in texts))
        self.stream.flush()

    def close(self):
        """Nothing is open."""


class Hosts(Progress):
    """The rows of the hosts, as many as the terminal has room for."""

    def get_renderables(self):
        rows = self.tasks  # none yet when Progress itself is made, without its console
        room = max(1, self.console.height - 2) if rows else 0
        yield self.make_tasks_table(rows[:room])
        if len(rows) > room:
            yield Text(f"… and {len(rows) - room} more hosts")


class Seconds(ProgressColumn):
    """How long a host takes; it goes on when all bytes are sent."""

    def render(self, task):
        return Text(f"{task.elapsed or 0:.0f} s".rjust(5))


class Bar(BarColumn):
    """A bar, where there is something to send."""

    def render(self, task):
        return super().render(task) if task.total else Text()


class Bytes(DownloadColumn):
    """Bytes sent of all, where there is something to send."""

    def render(self, task):
        return super().render(task) if task.total else Text()


class Live(Plain):
    """On a terminal: one live line a host with its step and a bar for bytes sent."""

    def __init__(self, stream):
        super().__init__(stream)
        self.progress = None
        self.rows = {}

    def on_begin(self, event):
        self.close()
        self.progress = Hosts(
            SpinnerColumn(finished_text="…"), TextColumn("{task.fields[host]}", markup=False),
            TextColumn("{task.description}", markup=False), Seconds(), Bar(), Bytes(),
            console=self.console, transient=True,
        )
        self.rows = {}
        self.progress.start()

    def on_host(self, event):
        self.rows[event.host] = self.progress.add_task(event.step, total=None, host=event.host.name)

    def on_sent(self, event):
        count, total = event.data
        self.progress.update(self.rows[event.host], advance=count, total=total)

    def on_done(self, event):
        self.progress.remove_task(self.rows.pop(event.host))

    def on_end(self, event):
        self.close()
        super().on_end(event)

    def lines(self, texts):
        self.console.print(Text("\n").join(map(Text.from_ansi, texts)), soft_wrap=True)

    def close(self):
        """Gives the terminal back."""
        if self.progress:
            self.progress.stop()
            self.progress = None


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


def listener(*, as_json, stream=None):
    """The listener that suits where output goes."""
    stream = stream or sys.stdout
    if as_json:
        return Json(stream)
    live = stream.isatty() and not Console(file=stream).is_dumb_terminal
    return Live(stream) if live else Plain(stream)


def agreed(question):
    """Whether the person at the terminal says yes; without one it is a no."""
    if not (sys.stdin and sys.stdin.isatty()):
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
