"""People who visit the site, and whom they follow."""

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.urls import reverse


class Person(AbstractUser):
    """Somebody with an account. Their username is their address on the site."""

    about = models.CharField(max_length=200, blank=True)
    follows = models.ManyToManyField(
        "self", through="Follow", symmetrical=False, related_name="followers"
    )

    class Meta:
        ordering = ["username"]

    def get_absolute_url(self):
        return reverse("person", args=[self.username])


class Follow(models.Model):
    """One person follows another, from a moment on."""

    follower = models.ForeignKey(Person, models.CASCADE, related_name="follow_set")
    followed = models.ForeignKey(Person, models.CASCADE, related_name="follower_set")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["followed", "follower"], name="follow_once"),
            models.CheckConstraint(
                condition=~models.Q(follower=models.F("followed")), name="follow_another"
            ),
        ]

    def __str__(self):
        return f"{self.follower} follows {self.followed}"
