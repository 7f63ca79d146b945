"""The Celery application, and the remote command that tells which release a worker runs."""

import os

from celery import Celery
from celery.worker.control import inspect_command

from . import release as running

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conference.settings")
app = Celery("conference")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@inspect_command()
def release(state, **kwargs):
    """Which release this worker runs."""
    return running.facts()
