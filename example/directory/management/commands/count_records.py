"""Counts what the tasks of a batch recorded."""

from django.core.management.base import BaseCommand
from django.db.models import Count

from directory.models import Record


class Command(BaseCommand):
    help = "Print how many tasks of BATCH are done, and how many different ones."

    def add_arguments(self, parser):
        parser.add_argument("batch")

    def handle(self, *, batch, **options):
        counts = {"done": Count("number"), "distinct": Count("number", distinct=True)}
        found = Record.objects.filter(batch=batch).aggregate(**counts)
        return "done {done} distinct {distinct}".format(**found)
