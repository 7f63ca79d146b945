"""The pages of the directory."""

from conference import release
from django.core.cache import cache
from django.shortcuts import render

from .models import Conference

SECONDS = 60


def home(request):
    """Every conference with its sessions, and the release that made the page."""
    # Objects are pickled in the cache: a release reads only what its own code has put there.
    conferences = cache.get_or_set(f"conferences-{release.NAME}", _conferences, SECONDS)
    return render(
        request, "directory/home.html", {"conferences": conferences, "release": release.NAME}
    )


def _conferences():
    return list(Conference.objects.prefetch_related("sessions"))
