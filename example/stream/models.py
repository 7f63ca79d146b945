"""What people do, written once; who hears of it is in the inboxes."""

from directory.models import Session
from django.db import models
from people.models import Person


class Activity(models.Model):
    """Somebody added a session, or followed somebody."""

    actor = models.ForeignKey(Person, models.CASCADE, related_name="activities")
    session = models.ForeignKey(Session, models.CASCADE, null=True, related_name="+")
    person = models.ForeignKey(Person, models.CASCADE, null=True, related_name="+")
    created = models.DateTimeField(auto_now_add=True)
    # Of an actor whom too many follow: readers look it up themselves, it is in no inbox.
    pulled = models.BooleanField(default=False, db_default=False)
    spread = models.BooleanField(default=False, db_default=False)  # it is in every inbox

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["actor", "-id"], name="activity_of_actor"),
            models.Index(fields=["id"], condition=models.Q(pulled=True), name="activity_pulled"),
            models.Index(fields=["id"], condition=models.Q(spread=False), name="activity_unspread"),
        ]

    def __str__(self):
        return f"{self.actor} → {self.session or self.person}"
