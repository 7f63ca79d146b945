"""Listens to the fleet's events and prints them: live on a terminal, plain lines, or JSON."""

import json
import sys
import threading

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

WIDE = 400  # no cell of a table is cut; a narrow terminal wraps its lines


class Plain:
    """A line a step, `host | text` for what hosts say; no terminal needed."""

    def __init__(self, stream):
        width = None if stream.isatty() else 200
        self.console = Console(file=stream, highlight=False, soft_wrap=True, width=width)
        self.lock = threading.RLock()

    def __call__(self, event):
        with self.lock:
            getattr(self, f"on_{event.kind}", lambda event: None)(event)

    def on_say(self, event):
        for text in str(event.data).splitlines() or [""]:
            self.line(f"{event.host.name} | {text}" if event.host else text)

    def on_end(self, event):
        if not event.step or not event.data:
            return
        failed = event.data.failed
        count = f"{len(event.data) - len(failed)}/{len(event.data)}" if failed else len(event.data)
        plural = "" if len(event.data) == 1 else "s"
        names = f"  failed: {' '.join(host.name for host in failed)}" if failed else ""
        self.line(f"{event.step:<10} {count} host{plural} ok  {event.seconds:.2f} s{names}")

    def on_table(self, event):
        columns, rows = event.data
        table = Table(title=event.step or None, title_justify="left", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*map(str, row))
        self.console.print(table, markup=False, width=WIDE, crop=False)

    def line(self, text):
        self.console.print(text, markup=False)

    def close(self):
        """Nothing is open."""


class Live(Plain):
    """On a terminal: one live line a host with its step and a bar for bytes sent."""

    def __init__(self, stream):
        super().__init__(stream)
        self.progress = None
        self.rows = {}

    def on_begin(self, event):
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.fields[host]:<12} {task.description}"), BarColumn(),
            DownloadColumn(), console=self.console, transient=True,
        )
        self.rows = {}
        self.progress.start()

    def on_host(self, event):
        self.rows[event.host] = self.progress.add_task(event.step, total=None, host=event.host.name)

    def on_sent(self, event):
        self.progress.advance(self.rows[event.host], event.data)

    def on_done(self, event):
        self.progress.remove_task(self.rows[event.host])

    def on_end(self, event):
        self.close()
        super().on_end(event)

    def close(self):
        """Gives the terminal back."""
        if self.progress:
            self.progress.stop()


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
            print(text, file=self.stream, flush=True)

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


def listener(*, as_json, stream=None):
    """The listener that suits where output goes."""
    stream = stream or sys.stdout
    if as_json:
        return Json(stream)
    return Live(stream) if stream.isatty() else Plain(stream)
