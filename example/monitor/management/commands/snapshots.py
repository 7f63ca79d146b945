"""What the camera has seen last."""

import json

from django.core.management.base import BaseCommand
from django.urls import reverse

from monitor.models import Snapshot

COLUMNS = ("waiting", "states", "slowest", "workers")


class Command(BaseCommand):
    help = "Print the last COUNT snapshots: tasks by state, the queue's length, the slowest task."

    def add_arguments(self, parser):
        parser.add_argument("count", type=int, nargs="?", default=10)
        parser.add_argument("--json", action="store_true", help="all of them, for `fab`")

    def handle(self, *, count, **options):
        shots = list(reversed(Snapshot.objects.order_by("-taken")[:count]))
        if options["json"]:
            return json.dumps({"page": reverse("monitor"), "snapshots": [*map(facts, shots)]})
        for shot in shots:
            states = " ".join(f"{name}={number}" for name, number in sorted(shot.states.items()))
            slow = " ".join(map(str, shot.slowest[0])) if shot.slowest else "-"
            self.stdout.write(f"{shot} waiting={shot.waiting} {states or 'idle'} slowest: {slow}")


def facts(shot):
    """A snapshot as JSON has it."""
    return {"taken": str(shot)} | {name: getattr(shot, name) for name in COLUMNS}
