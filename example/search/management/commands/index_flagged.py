"""Makes the search index catch up with the database."""

import time

from django.core.management.base import BaseCommand, CommandError

from search import engine, flagged

WIDTH = 30


class Command(BaseCommand):
    help = "Index every flagged row; safe to run on several hosts at once, and to end at any point."

    def add_arguments(self, parser):
        parser.add_argument("--all", action="store_true", help="flag every row first")

    def handle(self, **options):
        if options["all"]:
            for model in engine.models():
                model.objects.update()
        self.begun, self.done, self.total = time.monotonic(), 0, flagged.waiting()
        try:
            flagged.index(self.tell)
        except engine.errors() as error:
            raise CommandError(
                f"{engine.name()} failed after {self.done} rows, the rest stays flagged: {error}"
            ) from error
        rate = self.done / max(time.monotonic() - self.begun, 0.001)
        return f"indexed {self.done} rows, {rate:,.0f}/s"

    def tell(self, count):
        """The progress bar, for somebody at a terminal."""
        self.done += count
        if self.stderr.isatty():
            full = WIDTH * self.done // max(self.total, self.done)
            bar = "█" * full + "·" * (WIDTH - full)
            self.stderr.write(f"\r{bar} {self.done}/{max(self.total, self.done)}", ending="")
