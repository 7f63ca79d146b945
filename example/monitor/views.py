"""The page that shows when and where the queue went wrong."""

import base64
from datetime import timedelta
from functools import wraps

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache

from . import plots
from .models import Snapshot

MOST = 720
HOURS = (1, 6, 24, 168)


def with_password(view):
    """Only for who knows MONITOR_PASSWORD of the shared .env, as for Flower."""

    @wraps(view)
    def guarded(request):
        wanted = base64.b64encode(f"monitor:{settings.MONITOR_PASSWORD}".encode()).decode()
        given = request.headers.get("Authorization", "")
        if settings.MONITOR_PASSWORD and constant_time_compare(given, f"Basic {wanted}"):
            return view(request)
        return HttpResponse("a password is needed\n", status=401, content_type="text/plain",
                            headers={"WWW-Authenticate": 'Basic realm="monitor"'})

    return guarded


@never_cache
@with_password
def monitor(request):
    """The snapshots of the last hours, as plots, and the slowest tasks."""
    hours = next((h for h in HOURS if str(h) == request.GET.get("hours")), HOURS[0])
    found = Snapshot.objects.filter(taken__gt=timezone.now() - timedelta(hours=hours))
    shots = list(found.order_by("-taken")[:MOST])[::-1]
    slow = sorted(((seconds, name, worker, shot.taken) for shot in shots
                   for name, seconds, worker in shot.slowest), reverse=True)[:10]
    facts = {"plots": plots.of(shots), "slow": slow, "last": shots[-1] if shots else None,
             "hours": hours, "choices": HOURS}
    return render(request, "monitor/monitor.html", facts)
