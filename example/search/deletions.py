"""Deleted rows leave a tombstone, in the same transaction, however they were deleted."""

from django.apps import apps
from django.db.models.signals import post_delete, pre_delete

from . import prompt
from .models import Indexed, Tombstone, flag


def watch() -> None:
    """Follows the deletions of every model that is indexed, cascades among them."""
    for model in apps.get_models():
        if issubclass(model, Indexed):
            pre_delete.connect(flag_others, sender=model)
            post_delete.connect(leave_tombstone, sender=model)


def flag_others(instance, **kwargs):
    flag(type(instance)._base_manager.filter(pk=instance.pk))


def leave_tombstone(instance, **kwargs):
    Tombstone.objects.create(kind=instance._meta.label_lower, key=instance.pk)
    prompt.indexing()
