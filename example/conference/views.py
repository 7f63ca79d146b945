"""What machines ask a process of the site: is it well, and which release does it run?"""

from django.http import JsonResponse
from django.views.decorators.cache import never_cache

from . import health, release


@never_cache
def healthz(request):
    """200 when all that the site needs answers; else 503, saying what does not and why."""
    checks = health.report()
    well = set(checks.values()) == {"ok"}
    answer = {"status": "ok" if well else "failing", "release": release.NAME, **checks}
    return JsonResponse(answer, status=200 if well else 503)


@never_cache
def running(request):
    """The release that the answering process imported."""
    return JsonResponse(release.facts())
