"""Conferences, their sessions and who speaks there, and the notes that the task `record` leaves."""

from django.db import models
from django.urls import reverse
from search.models import Indexed


class Conference(Indexed):
    shown_in = ("sessions",)

    name = models.CharField(max_length=100, unique=True)
    city = models.CharField(max_length=100)
    starts = models.DateField()
    ends = models.DateField()
    about = models.TextField(blank=True)

    class Meta(Indexed.Meta):
        ordering = ["starts", "name"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("conference", args=[self.pk])


class Speaker(Indexed):
    shown_in = ("sessions",)

    name = models.CharField(max_length=100, unique=True)
    about = models.TextField(blank=True)
    link = models.URLField(blank=True)
    link_title = models.CharField(max_length=200, blank=True, editable=False)

    class Meta(Indexed.Meta):
        ordering = ["name"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("speaker", args=[self.pk])


class Session(Indexed):
    conference = models.ForeignKey(Conference, models.CASCADE, related_name="sessions")
    title = models.CharField(max_length=200)
    about = models.TextField(blank=True, db_default="")
    speakers = models.ManyToManyField(Speaker, related_name="sessions", blank=True)
    starts = models.DateTimeField()

    class Meta(Indexed.Meta):
        ordering = ["starts", "title"]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("session", args=[self.pk])


class Picture(models.Model):
    """A speaker's picture in one size, or a link's icon. In the database, since hosts share no
    disk: any web host can answer for what any worker has made.
    """

    speaker = models.ForeignKey(Speaker, models.CASCADE, related_name="pictures")
    size = models.CharField(max_length=10)  # "upload", "icon", or its width in pixels
    digest = models.CharField(max_length=64)
    kind = models.CharField(max_length=20)  # image/jpeg …
    data = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["speaker", "size"], name="picture_once")]

    def __str__(self):
        return f"{self.speaker} {self.size}"

    def get_absolute_url(self):
        return reverse("picture", args=[self.speaker_id, self.size, self.digest[:12]])


class Record(models.Model):
    """One run of the task `record`. Nothing here is unique: a task that ran twice must show."""

    batch = models.CharField(max_length=32, db_index=True)
    number = models.PositiveIntegerField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"{self.batch} {self.number}"
