"""Conferences and their sessions, and the notes that the task `record` leaves."""

from django.db import models


class Conference(models.Model):
    name = models.CharField(max_length=100, unique=True)
    city = models.CharField(max_length=100)
    starts = models.DateField()
    ends = models.DateField()
    about = models.TextField(blank=True)

    class Meta:
        ordering = ["starts", "name"]

    def __str__(self):
        return self.name


class Session(models.Model):
    conference = models.ForeignKey(Conference, models.CASCADE, related_name="sessions")
    title = models.CharField(max_length=200)
    speaker = models.CharField(max_length=100)
    starts = models.DateTimeField()

    class Meta:
        ordering = ["starts", "title"]

    def __str__(self):
        return self.title


class Record(models.Model):
    """One run of the task `record`. Nothing here is unique: a task that ran twice must show."""

    batch = models.CharField(max_length=32, db_index=True)
    number = models.PositiveIntegerField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"{self.batch} {self.number}"
