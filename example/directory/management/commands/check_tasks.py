"""Imports all task code as a worker does: a release whose tasks cannot run is found before it."""

from conference.celery import app
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Import all task code and print the tasks' names; needs no broker."

    def handle(self, **options):
        app.loader.import_default_modules()
        return "\n".join(sorted(name for name in app.tasks if not name.startswith("celery.")))
