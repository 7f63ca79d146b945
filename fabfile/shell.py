"""Text for a POSIX shell. Every value that reaches a shell is quoted here and nowhere else."""

import shlex


def quote(value):
    """One shell word that stands for `str(value)`, whatever is in it. NUL is a ValueError."""
    text = str(value)
    if "\0" in text:
        raise ValueError(f"no shell can carry a NUL byte: {text!r}")
    return shlex.quote(text)


def line(template, *values):
    """`template` with each `{}` replaced by its value, quoted: line("rm -f {}", path)."""
    return template.format(*map(quote, values))


def assignments(values):
    """`NAME=value` words for a mapping, in its order; None is left out."""
    return " ".join(f"{name}={quote(value)}" for name, value in values.items() if value is not None)


def words(text):
    """The words a shell would make of `text`, for a command run here without one."""
    return shlex.split(text)
