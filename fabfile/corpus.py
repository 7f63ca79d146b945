"""Requests that prove the search front, and what a Solr would make of any that reaches it."""

import re
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import parse_qsl, unquote

from .errors import Usage

READS = {"select", "mlt", "spell", "terms", "get", "admin/ping"}
WRITES = {"update", "update/json", "update/json/docs"}
WHO = ("read", "write", "nobody")
KINDS = {"<": "text/xml", "[": "application/json", "{": "application/json"}  # by how a body begins
FORM = "application/x-www-form-urlencoded"
REACHES = {"read": "a slave", "write": "the master", "nobody": "nobody"}


@dataclass(frozen=True)
class Request:
    """One line of the corpus: who it must reach, what is sent, and the comment above it."""

    who: str
    line: str
    body: str = ""
    chunked: bool = False
    why: str = ""

    def encoded(self):
        """The bytes of it; the connection ends with the answer."""
        line, body = self.line, self.body.encode()
        if " HTTP/" not in line:
            line += " HTTP/1.1"
        head = [line, "Host: search", "Connection: close"]
        if self.chunked:
            head.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif body:
            head.append(f"Content-Length: {len(body)}")
        if self.body:
            head.append(f"Content-Type: {KINDS.get(self.body[0], FORM)}")
        return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def read(text, place):
    """The requests of a corpus file. Usage, with the line's number, for one that is none."""
    found, why = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            why = line.lstrip("# ")
        elif line.strip():
            found.append(request(line, f"{place}: line {number}", why))
    return found


def request(line, place, why=""):
    """The request that a line stands for."""
    first, *rest = [part.strip() for part in line.split(" | ")]
    who, _, sent = first.partition(" ")
    if who not in WHO or not sent.strip() or len(rest) > 2 or rest[1:] not in ([], ["chunked"]):
        raise Usage(f"{place}: WHO REQUEST LINE | BODY | chunked, WHO being one of "
                    f"{', '.join(WHO)}; not {line!r}")
    return Request(who, sent.strip(), rest[0] if rest else "", chunked=len(rest) == 2, why=why)


def table(requests):
    """What goes where and why, in Markdown: a row for each reason and whom it lets through to."""
    rows = ["| why | request | reaches |", "|---|---|---|"]
    for why, group in groupby(requests, lambda one: one.why):
        cells = {who: [] for who in WHO}
        for one in group:
            cells[one.who].append(shown(one))
        rows += [f"| {why} | {'<br>'.join(lines)} | {REACHES[who]} |"
                 for who, lines in cells.items() if lines]
    return "\n".join(rows) + "\n"


def shown(sent):
    """A request as a cell of that table has it."""
    return f"`{sent.line}`" + (", chunked" if sent.chunked else "")


def meaning(line):
    """What a Solr in Jetty would make of a request line: read, write, or nobody's business."""
    words = line.split(" ")
    if len(words) != 3:
        return "nobody"
    path, _, query = words[1].partition("?")
    handler = handler_of(path)
    if handler is None or is_refused(query):
        return "nobody"
    if handler.split("/")[0] == "update":
        return "write" if handler in WRITES and words[0] == "POST" else "nobody"
    return "read" if handler in READS and words[0] in ("GET", "HEAD", "POST") else "nobody"


def handler_of(path):
    """The handler of a core that a path means: `;a=b` cut off each segment, then decoded, then
    without dot segments. None if it is not one of a core that may be reached.
    """
    segments = []
    for raw in path.split("/"):
        segment = unquote(raw.partition(";")[0])
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    if len(segments) < 3 or segments[0] != "solr" or not re.fullmatch(r"[\w-]+", segments[1]):
        return None
    return None if segments[1] == "admin" else "/".join(segments[2:])


def is_refused(query):
    """Whether a parameter would have Solr take another handler, ask another or read a file."""
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return any(name in ("qt", "tr") or name.startswith(("shards", "stream.")) for name in names)


def judge(sent, heard, modes):
    """What is wrong with whom a Request reached, in sentences. `heard` are (role, mode, request
    line) in order, `modes` pairs (role, mode) of all Solrs, up being the mode of those that live.
    """
    slave_lives = ("slave", "up") in modes
    for role, _, line in heard:
        means = meaning(line)
        if means == "nobody":
            yield f"reached a {role}: {line}"
        elif means == "write" and role == "slave":
            yield f"a write reached a slave: {line}"
        elif means == "read" and role == "master" and slave_lives:
            yield f"a read needed the master: {line}"
    if [meaning(line) for *_, line in heard].count("write") > 1:
        yield "a write was sent more than once"
    if sent.who in WHO and reached(heard) != expected(sent.who, modes):
        yield f"is for {expected(sent.who, modes)}, reached {reached(heard)}"


def expected(who, modes):
    """Who has to be reached last: a read one that lives, a write the master, whatever its mode."""
    if who == "read":
        return next((role for role in ("slave", "master") if (role, "up") in modes), "nobody")
    mode = dict(modes)["master"] if who == "write" else "dead"
    return "nobody" if mode == "dead" else called("master", mode)


def reached(heard):
    """Who was reached last."""
    return called(*heard[-1][:2]) if heard else "nobody"


def called(role, mode):
    """A role, with what is the matter with it."""
    return role if mode == "up" else f"{role} ({mode})"
