"""Makes the index catch up: batch by batch, on several workers at once, killed at any point.

A batch reads the marks of flagged rows, then the rows, writes them to the index, and clears the
flags whose marks are still the same. Until that has been committed, every flag is where it was.
"""

from collections.abc import Callable

from django.apps import apps
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Mod

from . import engine
from .models import Shard, Tombstone

BATCH = 1000


def index(tell: Callable[[int], None] = lambda count: None) -> int:
    """Works until nothing that is free to take is left; how many rows and tombstones that were.

    `tell` hears of each batch. Raises one of engine.errors() when the engine is down.
    """
    shards = 1 if engine.embedded() else Shard.COUNT
    total = 0
    for shard in range(shards):
        while count := _turn(shard, shards):
            total += count
            tell(count)
    return total


def waiting() -> int:
    """How many rows and tombstones the index has yet to hear of."""
    flagged = [model._base_manager.filter(needs_indexing=True) for model in engine.models()]
    return sum(rows.count() for rows in [*flagged, Tombstone.objects.all()])


@transaction.atomic
def _turn(shard, shards):
    """One batch of each kind, with the shard locked; 0 if another worker has it."""
    lock = Shard.objects.select_for_update(skip_locked=True).filter(pk=shard)
    if not lock:
        return 0
    count = _bury(_share(Tombstone.objects, "key", shard, shards))
    for model in engine.models():
        flagged = model._base_manager.filter(needs_indexing=True)
        count += _catch_up(model, _share(flagged, "pk", shard, shards))
    return count


def _share(rows, key, shard, shards):
    mine = rows.annotate(shard=Mod(F(key), shards)).filter(shard=shard)
    return mine.order_by("pk")[:BATCH]


def _catch_up(model, flagged):
    marks = dict(flagged.values_list("pk", "mark"))  # before the rows themselves are read
    shown = list(engine.index(model).index_queryset().filter(pk__in=marks))
    engine.write(model, shown)
    engine.remove(model._meta.label_lower, marks.keys() - {row.pk for row in shown})
    # No mark: the row is as a release without marks left it.
    same = Q(mark__in=marks.values()) | Q(mark=None)
    model._base_manager.filter(same, pk__in=marks).update(needs_indexing=False)
    return len(marks)


def _bury(tombstones):
    stones = list(tombstones)
    for kind in {stone.kind for stone in stones}:
        keys = {stone.key for stone in stones if stone.kind == kind}
        # A row that came back under the same key is flagged: its document is not ours to remove.
        back = apps.get_model(kind)._base_manager.filter(pk__in=keys).values_list("pk", flat=True)
        engine.remove(kind, keys - set(back))
    Tombstone.objects.filter(pk__in=[stone.pk for stone in stones]).delete()
    return len(stones)
