"""Some people to look at. All of them are invented, and nobody can log in as one of them."""

from django.db import migrations

PEOPLE = {
    "mara": "Malmö. Servers, and the notes about them.",
    "ines": "Queues that lose nothing.",
    "yuki": "Late replicas.",
    "sam": "Fridays.",
}
FOLLOWS = [("mara", "ines"), ("ines", "mara"), ("yuki", "mara"), ("sam", "mara"), ("sam", "yuki")]


def add(apps, schema_editor):
    Person = apps.get_model("people", "Person")
    Follow = apps.get_model("people", "Follow")
    people = {
        name: Person.objects.create(username=name, about=about, password="!")
        for name, about in PEOPLE.items()
    }
    for follower, followed in FOLLOWS:
        Follow.objects.create(follower=people[follower], followed=people[followed])


class Migration(migrations.Migration):
    dependencies = [("people", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
