"""Queues tasks that each leave one row, to prove that restarts lose none and run none twice."""

import uuid

from django.core.management.base import BaseCommand, CommandError
from kombu.exceptions import OperationalError

from directory.tasks import record


class Command(BaseCommand):
    help = "Queue COUNT tasks that each record their run; prints the batch for count_records."

    def add_arguments(self, parser):
        parser.add_argument("count", type=int)
        parser.add_argument("--seconds", type=float, default=0, help="what each task takes")

    def handle(self, *, count, seconds, **options):
        batch = uuid.uuid4().hex[:12]
        try:
            for number in range(1, count + 1):
                record.delay(batch, number, seconds)
        except OperationalError as error:
            raise CommandError(f"batch {batch}: cannot queue task {number}: {error}") from error
        return batch
