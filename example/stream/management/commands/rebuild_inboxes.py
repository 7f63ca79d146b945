"""Fills every inbox from the database, after Redis was emptied."""

from django.core.management.base import BaseCommand, CommandError
from people.models import Person
from redis.exceptions import RedisError

from stream import activities, inbox


class Command(BaseCommand):
    help = "Fill every inbox from the database; nothing that is delivered meanwhile is lost."

    def handle(self, **options):
        if not inbox.connection():
            raise CommandError("no host of servers.json has an inbox: there is nothing to fill")
        people = Person.objects.values_list("pk", flat=True)
        try:
            for person in people.iterator():
                activities.rebuild(person)
        except RedisError as error:
            raise CommandError(f"cannot fill the inbox of {person}: {error}") from error
        return f"filled {len(people)} inboxes"
