"""What became of a job that somebody waits for. It is kept in the cache for some hours and nowhere
else: a user who leaves costs nothing, and the oldest drop out.
"""

import secrets
import time

from django.conf import settings
from django.core.cache import cache

HOURS = 4
ATTEMPTS = 3  # a job that ends its worker is not given to worker after worker
GRACE = 5  # seconds that a worker has to end a task that takes too long


class Refused(Exception):
    """The job can't be done, and trying again won't help; the text is for the user."""


def create(owner: int) -> str:
    """A new job of a person (a key); its name, which nobody can guess."""
    name = secrets.token_urlsafe(16)
    Progress(name).write(owner=owner, state="waiting", attempts=0)
    return name


def find(name: str) -> dict | None:
    """What is known of a job: owner, state (waiting, running, done, failed) and what goes with it.

    None once it is forgotten. A worker that died is noticed when its time is up.
    """
    job = cache.get(_key(name))
    late = settings.LONGEST_TASK + GRACE
    if job and job["state"] == "running" and time.time() - job["since"] > late:
        return job | {"state": "failed", "text": "It was not finished in time; please try again."}
    return job


def file(name: str) -> tuple[str, bytes] | None:
    """A job's file: its name and content. None once it is forgotten."""
    return cache.get(_key(name, "file"))


class Progress:
    """How a task tells what it does. Without a job (""), nobody listens."""

    def __init__(self, name: str):
        self.name = name

    def write(self, **facts) -> None:
        if self.name:
            job = cache.get(_key(self.name)) or {}
            cache.set(_key(self.name), job | facts, HOURS * 3600)

    def begin(self) -> None:
        """A worker starts. Raises Refused if the workers before it did not survive the job."""
        attempts = (cache.get(_key(self.name)) or {}).get("attempts", 0) if self.name else 0
        if attempts >= ATTEMPTS:
            raise Refused(f"It has been tried {ATTEMPTS} times in vain.")
        self.write(state="running", since=time.time(), attempts=attempts + 1)

    def step(self, done: int, total: int) -> None:
        self.write(done=done, total=total)

    def keep(self, name: str, content: bytes) -> None:
        """A file for the user. Raises Refused for one that the cache can't hold."""
        if len(content) > 900_000:
            raise Refused("The file would be too long.")
        if self.name:
            cache.set(_key(self.name, "file"), (name, content), HOURS * 3600)


def _key(name, part="job"):
    return f"{part}-{name}"
