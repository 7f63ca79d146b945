"""Telling followers what somebody did, and reading what those whom one follows did."""

import logging

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from people.models import Follow
from redis.exceptions import RedisError

from . import inbox
from .models import Activity

log = logging.getLogger(__name__)
PAGE = 20


def publish(actor, **what) -> Activity:
    """Writes an activity (session=… or person=…), and has it told once that is committed."""
    from .tasks import fan_out

    followers = Follow.objects.filter(followed=actor).count()
    many = followers > settings.STREAM_PULL_ABOVE
    activity = Activity.objects.create(actor=actor, pulled=many, spread=many, **what)
    if not many and inbox.connection():
        transaction.on_commit(
            lambda: fan_out.apply_async([activity.pk], retry=False), robust=True
        )
    return activity


def followers(actor: int, after: int, size: int) -> list[int]:
    """The next `size` keys of an actor's followers, in their order."""
    found = Follow.objects.filter(followed=actor, follower__gt=after)
    return list(found.order_by("follower").values_list("follower", flat=True)[:size])


def of_followed(person: int):
    """Every activity that somebody wants to hear of, as it is now: the truth behind an inbox."""
    followed = Follow.objects.filter(follower=person, followed=OuterRef("actor"))
    return Activity.objects.filter(Exists(followed))


def rebuild(person: int) -> None:
    """Fills an inbox from the database."""
    newest = of_followed(person).filter(pulled=False).order_by("-pk")[: inbox.KEEP]
    inbox.fill(person, list(newest.values_list("pk", flat=True)))


def read(person: int, before: int | None = None) -> tuple[list[Activity], int | None]:
    """A page of what somebody wants to hear of, and where the next one begins (None: no more).

    Without Redis, it comes from the database.
    """
    try:
        if inbox.connection():
            return _from_inbox(person, before)
    except RedisError as error:
        log.warning("the inbox of %s is read from the database: %s", person, error)
    return _cut(list(_shown(of_followed(person), before)[: PAGE + 1]), None)


def _from_inbox(person, before):
    found = []
    while len(found) <= PAGE:
        keys = inbox.page(person, before, PAGE + 1)
        if keys is None:
            rebuild(person)
            continue
        low = keys[-1] if len(keys) > PAGE else None
        wanted = of_followed(person).filter(Q(pk__in=keys) | Q(pulled=True))
        rows = _shown(wanted.filter(pk__gte=low) if low else wanted, before)
        found += rows[: PAGE + 1 - len(found)]
        before = low
        if low is None:
            break
    return _cut(found, before)


def _shown(activities, before):
    """With all that a page shows of them. Hidden sessions are not."""
    shown = activities.exclude(session__published=False)
    shown = shown.filter(pk__lt=before) if before else shown
    return shown.select_related("actor", "session", "person").order_by("-pk")


def _cut(found, low):
    if len(found) > PAGE:
        return found[:PAGE], found[PAGE - 1].pk
    return found, low


def unfollowed(follower: int, followed: int) -> None:
    """Takes somebody's activities out of an inbox; reading would leave them out anyway."""
    gone = Activity.objects.filter(actor=followed).order_by("-pk")[: inbox.KEEP]
    try:
        inbox.forget(follower, list(gone.values_list("pk", flat=True)))
    except RedisError as error:
        log.warning("the inbox of %s is not tidied: %s", follower, error)


def followed(follower: int) -> None:
    """An inbox takes in what a newly followed person did before."""
    try:
        if inbox.connection():
            rebuild(follower)
    except RedisError as error:
        log.warning("the inbox of %s is not filled: %s", follower, error)
