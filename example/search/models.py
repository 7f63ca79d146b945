"""What makes a model's rows searchable: a flag that says that the index has to catch up.

The flag is the truth. Whatever prompts the indexing may fail or be lost; the flag stays.
"""

import uuid

from django.db import models, transaction

from . import prompt

FLAG = ("needs_indexing", "mark")


def fresh() -> dict:
    """The values of a row that has just changed: no other change has the same mark."""
    return {"needs_indexing": True, "mark": uuid.uuid4()}


def flag(rows) -> None:
    """Flags the rows of other models whose documents show something of these (a queryset)."""
    for name in rows.model.shown_in:
        relation = rows.model._meta.get_field(name)
        shown = relation.related_model._base_manager
        shown.filter(**{f"{relation.field.name}__in": rows.values("pk")}).update(**fresh())


class IndexedQuerySet(models.QuerySet):
    """Changes of many rows flag them all."""

    def update(self, **values):
        with transaction.atomic(using=self.db):
            # Their keys now: after the change, other rows may match.
            keys = list(self.values_list("pk", flat=True)) if self.model.shown_in else []
            changed = super().update(**values | fresh())
            flag(self.model._base_manager.filter(pk__in=keys))
            prompt.indexing()
        return changed

    def bulk_create(self, objs, *args, update_fields=None, **kwargs):
        objs = list(objs)
        for obj in objs:
            vars(obj).update(fresh())
        if update_fields is not None:
            update_fields = [*update_fields, *FLAG]
        with transaction.atomic(using=self.db):
            created = super().bulk_create(objs, *args, update_fields=update_fields, **kwargs)
            prompt.indexing()
        return created


class Indexed(models.Model):
    """A model with a search index. Only published rows are found."""

    shown_in = ()  # relations to the rows whose documents show something of this one

    published = models.BooleanField(default=True, db_default=True)
    needs_indexing = models.BooleanField(default=True, db_default=True, editable=False)
    mark = models.UUIDField(default=uuid.uuid4, null=True, editable=False)

    objects = IndexedQuerySet.as_manager()

    class Meta:
        abstract = True
        indexes = [
            models.Index(
                fields=["id"], condition=models.Q(needs_indexing=True), name="%(class)s_flagged"
            )
        ]

    def save(self, *args, update_fields=None, **kwargs):
        vars(self).update(fresh())
        if update_fields is not None:
            update_fields = {*update_fields, *FLAG}
        with transaction.atomic(using=kwargs.get("using")):
            super().save(*args, update_fields=update_fields, **kwargs)
            flag(type(self)._base_manager.filter(pk=self.pk))
            prompt.indexing()


class Tombstone(models.Model):
    """A row that is gone, and whose document may still be in the index."""

    kind = models.CharField(max_length=100)  # app.model
    key = models.BigIntegerField()

    def __str__(self):
        return f"{self.kind}.{self.key}"


class Shard(models.Model):
    """A share of all keys. Whoever has locked its row is the only one to index these keys: an
    older state of a row can't be written over a newer one, and no editor waits for the engine.
    """

    COUNT = 16

    def __str__(self):
        return str(self.pk)
