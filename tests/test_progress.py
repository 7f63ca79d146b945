"""What people and programs see of a run: plain lines, a live terminal, JSON."""

import io
import json
import os

import pytest

from fabfile.cli import listener
from fabfile.errors import Failed
from fabfile.fleet import Event, Outcome, Outcomes
from fabfile.live import Live
from fabfile.progress import Json, Lasting, Plain, agreed


class Host:
    def __init__(self, name):
        self.name = name


class Terminal(io.StringIO):
    """80 columns and 24 rows of it."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


WEB1, WEB2 = Host("web1"), Host("web2")


def plain(*events):
    stream = io.StringIO()
    for event in events:
        Plain(stream)(event)
    return stream.getvalue()


def test_a_host_says_whole_lines_after_its_name():
    assert plain(Event("say", host=WEB1, data="one\ntwo")) == "web1 | one\nweb1 | two\n"
    assert plain(Event("say", data="build")) == "build\n"


@pytest.mark.parametrize("text", ["root:x:0:0", "[red] is no colour", "\x1b[31mred\x1b[0m", "→"])
def test_what_a_host_says_stays_as_it_is(text):
    assert plain(Event("say", host=WEB1, data=text)) == f"web1 | {text}\n"


def test_what_a_host_says_moves_no_cursor_and_rings_no_bell():
    assert plain(Event("say", host=WEB1, data="a\x07\x08\x00b")) == "web1 | ab\n"


def test_a_step_ends_with_a_line_that_names_who_failed():
    outcomes = Outcomes({WEB1: Outcome(WEB1), WEB2: Outcome(WEB2, Failed, 1)})
    end = Event("end", "stage", data=outcomes, seconds=1.234)
    assert plain(end) == "stage      1/2 hosts ok  1.23 s  failed: web2\n"


def test_a_step_without_a_name_ends_in_silence():
    assert plain(Event("end", "", data=Outcomes({WEB1: Outcome(WEB1)}))) == ""


def test_no_cell_of_a_table_is_cut(terminal):
    cell = "[x]" * 60
    event = Event("table", data=(("host", "what"), [("web1", cell)]))
    Live(terminal)(event)
    assert plain(event) == f"host  what\nweb1  {cell}\n"
    assert cell in terminal.getvalue()


def test_json_is_an_object_a_line_without_what_programs_say_to_each_other():
    stream = io.StringIO()
    for event in (
        Event("begin", "stage"),
        Event("host", "stage", WEB1),
        Event("sent", "stage", WEB1, (1, 2)),
        Event("output", "stage", WEB1, ("stdout", b"current -")),
        Event("output", "stage", WEB1, ("stderr", b"\xff careful\n")),
        Event("say", host=WEB1, data="two\nlines"),
        Event("done", "stage", WEB1, Outcome(WEB1, Failed, 1, reason="disk full")),
        Event("end", "stage", data=Outcomes()),
        Event("table", data=(("host",), [("web1",)])),
    ):
        Json(stream)(event)
    kinds = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert kinds == ["output", "say", "done", "end", "table"]


def busy(terminal, count):
    """A Live in the middle of a step on `count` hosts."""
    live, hosts = Live(terminal), [Host(f"h{number}") for number in range(count)]
    live(Event("begin", "stage"))
    for host in hosts:
        live(Event("host", "stage", host))
    return live, hosts


def test_a_terminal_has_a_live_line_a_host_with_a_bar_for_bytes_sent(terminal):
    live, hosts = busy(terminal, 2)
    live(Event("sent", "stage", hosts[0], (0, 4_000_000)))
    live(Event("sent", "stage", hosts[0], (1_000_000, 4_000_000)))
    live.progress.refresh()
    shown = terminal.getvalue()
    live.close()
    assert "1.0/4.0 MB" in shown and "━" in shown
    assert "h1" in shown and "0 bytes" not in shown


def test_more_hosts_than_rows_are_counted(terminal):
    live, _ = busy(terminal, 40)
    table, more = live.progress.get_renderables()
    live.close()
    assert table.row_count == 22 and str(more) == "… and 18 more hosts"


def test_the_terminal_is_given_back_once_with_the_cursor(terminal):
    live, hosts = busy(terminal, 3)
    for host in hosts:
        live(Event("done", "stage", host, Outcome(host)))
    live(Event("end", "stage", data=Outcomes({host: Outcome(host) for host in hosts})))
    live.close()
    shown = terminal.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert shown.rstrip().endswith("stage      3 hosts ok  0.00 s")


@pytest.mark.parametrize(("term", "kind"), [("xterm", Live), ("dumb", Plain)])
def test_a_terminal_that_can_not_move_its_cursor_gets_plain_lines(monkeypatch, term, kind):
    monkeypatch.setenv("TERM", term)
    assert type(listener(Terminal(), as_json=False)) is kind


def test_output_goes_on_when_its_reader_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        stream = Lasting(pipe)
        for _ in range(2):
            stream.write("more than anybody reads\n")
            stream.flush()


def test_output_that_was_closed_or_is_ascii_takes_any_text():
    Lasting(None).write("→")
    written = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(written, encoding="ascii"))
    stream.write("→")
    stream.flush()
    assert written.getvalue() == rb"\u2192"


def test_nobody_is_asked_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert not agreed("Sure? ")
    assert capsys.readouterr().out == ""
