"""The camera of `celery events`: one row for each shot, kept for a week."""

import logging
from collections import Counter
from datetime import timedelta

import django
from celery.events.snapshot import Polaroid

django.setup()

from django.db import DatabaseError, close_old_connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from .models import Snapshot  # noqa: E402

log = logging.getLogger(__name__)
KEPT = timedelta(days=7)
SLOWEST = 5


class Camera(Polaroid):
    clear_after = True  # tasks that have ended are in one snapshot only

    def on_shutter(self, state):
        close_old_connections()
        try:
            Snapshot.objects.create(waiting=waiting(self.app), **seen(state))
            Snapshot.objects.filter(taken__lt=timezone.now() - KEPT).delete()
        except (DatabaseError, OSError) as error:
            log.error("a snapshot is lost: %s", error)


def seen(state) -> dict:
    """What celery's state of the world says, as the columns of a snapshot."""
    tasks = list(state.tasks.values())
    ended = sorted((task for task in tasks if task.runtime), key=lambda task: -task.runtime)
    return {
        "states": Counter(task.state for task in tasks),
        "slowest": [slow(task) for task in ended[:SLOWEST]],
        "workers": sorted(worker.hostname for worker in state.alive_workers()),
    }


def slow(task) -> list:
    """Name, seconds and worker of a task; `?` for what came to pass before the camera looked."""
    worker = task.worker.hostname if task.worker else "?"
    return [task.name or "?", round(task.runtime, 3), worker]


def waiting(app) -> int:
    """How many messages are in the queue; on Redis, there is none while it is empty."""
    with app.connection_for_read() as connection:
        ask = connection.default_channel.queue_declare
        try:
            return ask(app.conf.task_default_queue, passive=True).message_count
        except connection.channel_errors:
            return 0
