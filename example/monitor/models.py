"""Snapshots of the queue: what was done, what waited and what was slow, every few seconds."""

from django.db import models


class Snapshot(models.Model):
    taken = models.DateTimeField(auto_now_add=True, db_index=True)
    states = models.JSONField()  # state → how many tasks got there since the snapshot before
    waiting = models.PositiveIntegerField()  # in the queue
    slowest = models.JSONField()  # [name, seconds, worker], the slowest first
    workers = models.JSONField()  # those that give a sign of life

    class Meta:
        ordering = ["taken"]

    def __str__(self):
        return f"{self.taken:%F %T}"
