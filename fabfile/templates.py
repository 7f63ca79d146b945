"""The files of templates/, filled in. What is wrong with one is a Usage that names its line."""

import re
import traceback
from functools import cache
from pathlib import Path

from .env import ROOT
from .errors import Usage

FOLDER = ROOT / "templates"


@cache
def environment(folder):
    """Jinja's Environment for the templates of a folder; an unknown name is an error."""
    import jinja2  # when it is needed: it takes a while to load

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True,
    )
    made.filters |= {"word": word, "flag": flag}
    return made


def word(value):
    """A filter: the value if it is one plain word of a configuration. ValueError if it is not."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_./:-]+", text):
        raise ValueError(f"{text!r} is not a plain word, so it could change the configuration")
    return text


def flag(host, name):
    """A filter: whether a host's var says so. ValueError if it is neither true nor false."""
    value = host.vars.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{host.name}: {name} must be true or false, not {value!r}")
    return value


def names(start):
    """The templates below templates/ whose path begins with `start`, in order."""
    return [name for name in environment(FOLDER).list_templates(extensions=["j2"])
            if name.startswith(start)]


def fill_in(name, facts):
    """The text of a template. Usage, on one line, if it can't be had."""
    try:
        return environment(FOLDER).get_template(name).render(facts)
    except Exception as error:  # an expression in a template may raise whatever it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Usage(f"templates/{place(error, name)}: {reason}") from error


def place(error, name):
    """Where in the templates an error is: a file and, where it is known, a line."""
    from jinja2 import TemplateSyntaxError

    if isinstance(error, TemplateSyntaxError):
        return f"{error.name}: line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if FOLDER in Path(frame.filename).parents:
            return f"{Path(frame.filename).relative_to(FOLDER)}: line {frame.lineno}"
    return name
