"""Speakers get a row of their own; what was a name in a session's column becomes a link to it."""

from django.db import migrations

ABOUT = {
    "Mara Lindqvist": "Looks after forty servers in Malmö, and writes down what they taught her.",
    "Tomás Vidal": "Operator first, programmer second.",
    "Ines Okafor": "Has moved queues between three brokers without losing a message.",
    "Pieter Haan": "Ranks things for a library.",
    "Yuki Tanabe": "Measures how late a replica is, and says so on the page.",
    "Beatriz Rocha": "Runs a whole fleet on one laptop.",
    "Sam Whitlock": "Deploys on Fridays.",
}


def add(apps, schema_editor):
    Session = apps.get_model("directory", "Session")
    Speaker = apps.get_model("directory", "Speaker")
    for session in Session.objects.exclude(speaker=""):
        about = ABOUT.get(session.speaker, "")
        found, _ = Speaker.objects.get_or_create(name=session.speaker, defaults={"about": about})
        session.speakers.add(found)


class Migration(migrations.Migration):
    dependencies = [("directory", "0003_speakers")]
    operations = [
        migrations.RunPython(add, migrations.RunPython.noop),
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveField("session", "speaker")]
        ),
    ]
