"""The search engine, whichever it is: writes, removals, counts, and how it fails."""

from django.conf import settings
from haystack import connections
from haystack.exceptions import HaystackError
from haystack.query import SearchQuerySet


def name() -> str:
    """whoosh, xapian or solr."""
    path = settings.HAYSTACK_CONNECTIONS["default"]["ENGINE"]
    return next(word for word in ("whoosh", "xapian", "solr") if word in path)


def embedded() -> bool:
    """Is the index a folder of this host, with one writer at a time?"""
    return name() != "solr"


def errors() -> tuple[type[Exception], ...]:
    """What the engine raises when it is down, cannot be reached or has lost its files."""
    if name() == "whoosh":
        from whoosh.index import IndexError, LockError

        own = (IndexError, LockError)
    elif name() == "xapian":
        from xapian import Error

        own = (Error,)
    else:
        from pysolr import SolrError

        own = (SolrError,)
    return (HaystackError, OSError, *own)


def models() -> list:
    """Every model with an index."""
    return connections["default"].get_unified_index().get_indexed_models()


def index(model):
    """The index class of a model."""
    return connections["default"].get_unified_index().get_index(model)


def write(model, rows) -> None:
    """Puts the documents of some rows (a list) into the index, in place of older ones."""
    if rows:
        backend().update(index(model), rows)


def remove(kind: str, keys) -> None:
    """Takes documents out, by kind (app.model) and keys, whether they are there or not."""
    names = [f"{kind}.{key}" for key in keys]
    if not names:
        return
    if name() == "solr":
        backend().conn.delete(id=names, commit=True)
        return
    for document in names:
        backend().remove(document)


def count(model) -> int:
    """How many documents of a model can be found."""
    return SearchQuerySet().models(model).count()


def suggestion(question: str) -> str:
    """The question in words that the index has; "" where it knows no better."""
    if not question:
        return ""
    if name() == "whoosh":  # Haystack asks it for no spelling where nothing is found
        return backend().create_spelling_suggestion(question)
    return SearchQuerySet().filter(content=question).spelling_suggestion(question) or ""


def backend():
    """Haystack's own backend, with its files open."""
    found = connections["default"].get_backend()
    if name() == "whoosh" and not found.setup_complete:
        found.setup()
    return found
