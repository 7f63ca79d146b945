"""Work done outside of a request."""

import time

from celery import shared_task

from .models import Record


@shared_task
def record(batch: str, number: int, seconds: float = 0) -> None:
    """Takes some time, then leaves one row saying that it ran."""
    time.sleep(seconds)
    Record.objects.create(batch=batch, number=number)
