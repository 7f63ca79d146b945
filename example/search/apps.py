"""Deletions of indexed rows are noticed from the start."""

from django.apps import AppConfig


class SearchConfig(AppConfig):
    name = "search"

    def ready(self):
        from . import deletions

        deletions.watch()
