"""Reads the site's secrets: lines of NAME=value, where # begins a comment line."""

from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """The file's names and values, none without a file. Raises ValueError for other lines."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return dict(_pair(line, f"{path}: line {n}") for n, line in lines if line and line[0] != "#")


def _pair(line: str, place: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals or not name.strip().isidentifier():
        raise ValueError(f"{place}: is not NAME=value")  # the line itself may be a secret
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return name.strip(), value[1:-1] if quoted else value
