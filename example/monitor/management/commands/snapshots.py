"""What the camera has seen last."""

from django.core.management.base import BaseCommand

from monitor.models import Snapshot


class Command(BaseCommand):
    help = "Print the last COUNT snapshots: tasks by state, the queue's length, the slowest task."

    def add_arguments(self, parser):
        parser.add_argument("count", type=int, nargs="?", default=10)

    def handle(self, *, count, **options):
        for shot in reversed(Snapshot.objects.order_by("-taken")[:count]):
            states = " ".join(f"{name}={number}" for name, number in sorted(shot.states.items()))
            slow = " ".join(map(str, shot.slowest[0])) if shot.slowest else "-"
            self.stdout.write(f"{shot} waiting={shot.waiting} {states or 'idle'} slowest: {slow}")
