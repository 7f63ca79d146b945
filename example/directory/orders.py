"""What members order from the workers: each answers at once, and the job goes on."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST
from jobs.views import start

from . import tasks
from .forms import LinkForm, PictureForm
from .models import Conference, Speaker


@require_POST
@login_required
def picture(request, pk):
    """A picture of the speaker, to be resized."""
    found = get_object_or_404(Speaker, pk=pk)
    form = PictureForm(request.POST, request.FILES)
    if not form.is_valid():
        return refusal(form)
    upload = form.cleaned_data["picture"]
    tasks.keep_picture(found.pk, "upload", upload.read(), kind="")  # shown to nobody
    return start(request, tasks.resize_picture, found.pk)


@require_POST
@login_required
def link(request, pk):
    """The address of the speaker's own page, whose title and icon are to be read."""
    form = LinkForm(request.POST, instance=get_object_or_404(Speaker, pk=pk))
    if not form.is_valid():
        return refusal(form)
    form.save()
    return start(request, tasks.read_link, pk)


@require_POST
@login_required
def report(request, pk):
    """The schedule of the conference as a file."""
    found = get_object_or_404(Conference, pk=pk, published=True)
    return start(request, tasks.report, found.pk, request.POST.get("format", "csv"))


def refusal(form):
    """What is wrong with the form, in one line for each field."""
    lines = [f"{name}: {' '.join(errors)}" for name, errors in form.errors.items()]
    return HttpResponse("\n".join(lines), status=422, content_type="text/plain; charset=utf-8")
