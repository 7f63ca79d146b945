"""The pages of the directory."""

from conference import release
from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.core.paginator import Paginator
from django.db.models import Prefetch
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_POST
from stream import activities

from . import forms
from .models import Conference, Picture, Session, Speaker

SECONDS = 60
PAGE = 24
FORMS = {
    "conference": forms.ConferenceForm,
    "session": forms.SessionForm,
    "speaker": forms.SpeakerForm,
}
# Objects are pickled in the cache: a release reads only what its own code has put there.
HOME = f"conferences-{release.NAME}"
shown = Session.objects.filter(published=True).prefetch_related("speakers")


def home(request):
    """Every conference with its sessions, and the release that made the page."""
    return render(
        request,
        "directory/home.html",
        {"conferences": cache.get_or_set(HOME, _conferences, SECONDS), "release": release.NAME},
    )


def _conferences():
    published = Conference.objects.filter(published=True)
    return list(published.prefetch_related(Prefetch("sessions", shown)))


def conference(request, pk):
    """One conference and its sessions."""
    found = get_object_or_404(Conference, pk=pk, published=True)
    sessions = shown.filter(conference=found)
    facts = {"conference": found, "sessions": sessions}
    return render(request, "directory/conference.html", facts)


def session(request, pk):
    """One session, who speaks and where."""
    visible = Session.objects.filter(published=True, conference__published=True)
    found = get_object_or_404(visible.select_related("conference"), pk=pk)
    facts = {"session": found, "speakers": found.speakers.filter(published=True)}
    return render(request, "directory/session.html", facts)


def speakers(request):
    """Everybody who speaks, a page at a time."""
    found = Speaker.objects.filter(published=True)
    page = Paginator(found, PAGE).get_page(request.GET.get("page"))
    faces = {p.speaker_id: p for p in _pictures().filter(speaker__in=page, size="96")}
    rows = [(speaker, faces.get(speaker.pk)) for speaker in page]
    return render(request, "directory/speakers.html", {"page": page, "rows": rows})


def speaker(request, pk):
    """One speaker, with picture and sessions."""
    found = get_object_or_404(Speaker, pk=pk, published=True)
    facts = {
        "speaker": found,
        "pictures": {f"size{p.size}": p for p in _pictures().filter(speaker=found)},
        "sessions": found.sessions.filter(published=True, conference__published=True),
    }
    return render(request, "directory/speaker.html", facts)


def _pictures():
    return Picture.objects.defer("data")


@cache_control(public=True, max_age=31536000, immutable=True)
def picture(request, pk, size, digest):
    """The bytes of a picture; its address changes when they do."""
    found = get_object_or_404(
        Picture.objects.exclude(size="upload"), speaker=pk, size=size, digest__startswith=digest
    )
    return HttpResponse(found.data, content_type=found.kind)


@login_required
def edit(request, kind, pk=None):
    """A form for a new or an existing conference, session or speaker. Any member may fill it in."""
    form_class = FORMS[kind]
    found = get_object_or_404(form_class.Meta.model, pk=pk) if pk else None
    form = form_class(request.POST or None, instance=found, initial=request.GET.dict())
    if form.is_valid():
        saved = form.save()
        if kind == "session" and not found and saved.published:
            activities.publish(request.user, session=saved)
        cache.delete(HOME)
        return redirect(saved if saved.published else "home")
    facts = {"form": form, "kind": kind, "found": found}
    return render(request, "directory/edit.html", facts, status=422 if form.errors else 200)


@require_POST
@login_required
def delete(request, kind, pk):
    """Takes a conference, session or speaker out of the directory."""
    get_object_or_404(FORMS[kind].Meta.model, pk=pk).delete()
    cache.delete(HOME)
    return redirect("home")
