"""Joining, and the pages of people."""

from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST
from stream import activities

from .forms import JoinForm
from .models import Follow, Person

PAGE = 30


def join(request):
    """A form for a new account; whoever fills it in is logged in at once."""
    form = JoinForm(request.POST or None)
    if form.is_valid():
        login(request, form.save())
        return redirect("home")
    return render(request, "people/join.html", {"form": form}, status=422 if form.errors else 200)


def people(request):
    """Everybody, a page at a time."""
    page = Paginator(Person.objects.all(), PAGE).get_page(request.GET.get("page"))
    return render(request, "people/people.html", {"page": page})


def person(request, username):
    """Somebody, whom they follow and who follows them."""
    found = get_object_or_404(Person, username=username)
    facts = {
        "person": found,
        "follows": found.follows.all()[:PAGE],
        "followers": found.followers.all()[:PAGE],
        "followed": Follow.objects.filter(followed=found, follower_id=request.user.pk).exists(),
    }
    return render(request, "people/person.html", facts)


@require_POST
@login_required
def follow(request, username):
    """The visitor follows this person, who may be followed already."""
    found = get_object_or_404(Person.objects.exclude(pk=request.user.pk), username=username)
    _, new = Follow.objects.get_or_create(follower=request.user, followed=found)
    if new:
        activities.publish(request.user, person=found)
        activities.followed(request.user.pk)
    return redirect(found)


@require_POST
@login_required
def unfollow(request, username):
    """The visitor follows this person no longer."""
    found = get_object_or_404(Person, username=username)
    Follow.objects.filter(follower=request.user, followed=found).delete()
    activities.unfollowed(request.user.pk, found.pk)
    return redirect(found)
