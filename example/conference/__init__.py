"""The project: its settings, its URLs and what a process knows about itself."""

from .celery import app as celery_app

__all__ = ["celery_app"]
