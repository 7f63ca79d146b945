"""Starting jobs, and waiting for them: by a page that loads itself again, or by polling."""

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.vary import vary_on_headers
from kombu.exceptions import OperationalError

from . import progress

EXPIRED = {"state": "expired", "text": "This was done too long ago: the result is not kept."}


def start(request, task, *args):
    """Queues a task for the visitor. 202 and where to ask, as JSON, for a script; else a page."""
    name = progress.create(request.user.pk)
    try:
        task.apply_async(args, {"job": name}, retry=False)
    except OperationalError:
        text = "The queue does not answer; please try again."
        progress.Progress(name).write(state="failed", text=text)
    place = reverse("job", args=[name])
    if wants_json(request):
        return JsonResponse({"job": place}, status=202, headers={"Location": place})
    return redirect(place)


def wants_json(request) -> bool:
    """Does a script ask? It says so in the form, or in what it accepts."""
    return "ajax" in request.POST or "application/json" in request.headers.get("Accept", "")


@never_cache
@vary_on_headers("Accept")
@login_required
def job(request, name):
    """How far a job of the visitor's is. Nobody else can see it."""
    found = mine(request, name) or EXPIRED
    facts = {key: found[key] for key in ("state", "text", "done", "total") if key in found}
    if found["state"] == "done" and progress.file(name):
        facts["file"] = reverse("job_file", args=[name])
    if wants_json(request):
        return JsonResponse(facts)
    return render(request, "jobs/job.html", {"job": facts})


@never_cache
@login_required
def job_file(request, name):
    """The file that a job has made."""
    file = mine(request, name) and progress.file(name)
    if not file:
        raise Http404("not kept any longer")
    disposition = f'attachment; filename="{file[0]}"'
    return HttpResponse(file[1], content_type="application/octet-stream",
                        headers={"Content-Disposition": disposition})


def mine(request, name):
    """The visitor's job, or None if it is forgotten. Http404 for somebody else's."""
    found = progress.find(name)
    if found and found.get("owner") != request.user.pk:
        raise Http404("not yours")
    return found
