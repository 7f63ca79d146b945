"""The search page."""

import logging
import re
from urllib.parse import urlencode

from django.apps import apps
from django.core.paginator import Paginator
from django.shortcuts import render
from haystack.inputs import AutoQuery
from haystack.query import SQ, EmptySearchQuerySet, SearchQuerySet

from . import engine

log = logging.getLogger(__name__)
PAGE = 10
KINDS = {"conference": "Conferences", "session": "Sessions", "speaker": "Speakers"}


def search(request):
    """What was asked for, a page at a time; 503 and a page that says so if the engine is down."""
    question = request.GET.get("q", "").strip()[:200]
    kind = request.GET.get("kind", "")
    facts = {"question": question, "kind": kind if kind in KINDS else "", "kinds": KINDS}
    if not question:
        return render(request, "search/search.html", facts)
    try:
        facts |= answer(question, facts["kind"], request.GET.get("page"))
    except engine.errors() as error:
        log.error("search failed: %s", error)
        return render(request, "search/down.html", facts, status=503)
    facts["query"] = urlencode({"q": question, "kind": facts["kind"]}) + "&"
    return render(request, "search/search.html", facts)


def answer(question, kind, number):
    """A page of results, how many there are of each kind, and a better spelling if there is none.

    Raises one of engine.errors().
    """
    everything = matching(question)
    found = everything.models(model(kind)) if kind else everything
    page = Paginator(found.load_all(), PAGE).get_page(number)
    facts = {"page": page, "results": [(template(result), result) for result in page if result]}
    if not page.paginator.count:
        return facts | {"suggestion": engine.suggestion(plain(question))}
    return facts | {"counts": counts(everything)}


def plain(question):
    """Its words and "phrases", with a minus or without: nothing that an engine takes for syntax."""
    return " ".join(re.findall(r'-?"\w[^"]*"|-?\w[\w.\'-]*', question.lower()))


def matching(question):
    """All documents with these words; those that have them in the title weigh more."""
    words = AutoQuery(plain(question))
    if not words.query_string:
        return EmptySearchQuerySet()
    return SearchQuerySet().filter(SQ(content=words) & (SQ(title=words) | SQ(content=words)))


def counts(found):
    """(kind, heading, how many), as facets of the engine."""
    fields = found.facet("django_ct").facet_counts().get("fields", {})
    of = dict(fields.get("django_ct", []))
    return [(kind, heading, of.get(f"directory.{kind}", 0)) for kind, heading in KINDS.items()]


def model(kind):
    return apps.get_model("directory", kind)


def template(result):
    """Each kind of result has a template of its own."""
    return f"search/results/{result.model_name}.html"
