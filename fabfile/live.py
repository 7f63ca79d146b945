"""Prints the fleet's events on a terminal: what each host does now, and how far it is."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
)
from rich.text import Text

from .progress import Plain


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
        self.console = Console(file=stream, highlight=False, emoji=False, markup=False)
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
