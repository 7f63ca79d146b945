"""Telling followers: one task for an activity, one more for each thousand of them."""

from datetime import timedelta

from celery import shared_task
from django.utils import timezone
from redis.exceptions import RedisError

from . import activities, inbox
from .models import Activity

again = {"autoretry_for": (RedisError,), "max_retries": 8, "retry_backoff": True}


@shared_task(**again)
def fan_out(activity: int) -> None:
    """Queues the deliveries of an activity (a key), unless it is gone."""
    actor = Activity.objects.filter(pk=activity).values_list("actor", flat=True).first()
    after = 0
    while people := actor and activities.followers(actor, after, inbox.CHUNK):
        deliver.delay(activity, people)
        after = people[-1]
    Activity.objects.filter(pk=activity).update(spread=True)


@shared_task(**again)
def deliver(activity: int, people: list[int]) -> None:
    """Puts an activity into the inboxes of some people (keys)."""
    inbox.deliver(activity, people)


@shared_task
def fan_out_missed() -> None:
    """Beat's: the activities whose own task was lost."""
    late = timezone.now() - timedelta(minutes=1)
    missed = Activity.objects.filter(spread=False, created__lt=late)
    for activity in missed.values_list("pk", flat=True)[: inbox.CHUNK]:
        fan_out.delay(activity)
