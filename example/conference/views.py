"""What machines ask a process of the site: is it well, and which release does it run?"""

import os

from django.http import JsonResponse
from django.views.decorators.cache import never_cache

from . import health, release


@never_cache
def healthz(request):
    """503 when no page can be made, else 200; what does not answer, and why."""
    checks = health.report()
    status = health.status(checks)
    answer = {"status": status, "release": release.NAME, **checks}
    return JsonResponse(answer, status=503 if status == "failing" else 200)


@never_cache
def running(request):
    """The release that the answering process imported, and the master that forked it."""
    return JsonResponse({**release.facts(), "master": os.getppid()})
