"""The page of what those whom one follows did."""

from django.contrib.auth.decorators import login_required
from django.shortcuts import render

from . import activities


@login_required
def stream(request):
    """A page of the visitor's inbox, and a link to what is older."""
    before = request.GET.get("before", "")
    before = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else None
    found, older = activities.read(request.user.pk, before)
    return render(request, "stream/stream.html", {"activities": found, "older": older})
