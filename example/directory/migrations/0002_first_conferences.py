"""Some rows to look at. All of it is invented."""

from datetime import UTC, date, datetime

from django.db import migrations

CONFERENCES = [
    (
        ("Harbour Python", "Hamburg", date(2027, 3, 18), date(2027, 3, 19)),
        "Two days about Python in production, in an old warehouse on the river.",
        [
            ("A deploy you can read in one sitting", "Mara Lindqvist", (18, 9, 30)),
            ("What the host knows and the operator does not", "Tomás Vidal", (18, 11, 0)),
            ("Queues that lose nothing", "Ines Okafor", (19, 10, 15)),
        ],
    ),
    (
        ("Search Days", "Utrecht", date(2027, 5, 6), date(2027, 5, 8)),
        "Ranking, language and everything else between a question and its answer.",
        [
            ("Boosting a title, honestly", "Pieter Haan", (6, 10, 0)),
            ("Replicas, lag and the page that says so", "Yuki Tanabe", (7, 14, 30)),
        ],
    ),
    (
        ("Small Servers", "Porto", date(2027, 9, 23), date(2027, 9, 24)),
        "For people who run their own machines and mean to keep it that way.",
        [
            ("Twelve hosts on one laptop", "Beatriz Rocha", (23, 9, 0)),
            ("Rolling back on a Friday", "Sam Whitlock", (24, 16, 0)),
        ],
    ),
]


def add(apps, schema_editor):
    Conference = apps.get_model("directory", "Conference")
    for (name, city, starts, ends), about, sessions in CONFERENCES:
        conference = Conference.objects.create(
            name=name, city=city, starts=starts, ends=ends, about=about
        )
        for title, speaker, (day, hour, minute) in sessions:
            at = datetime(starts.year, starts.month, day, hour, minute, tzinfo=UTC)
            conference.sessions.create(title=title, speaker=speaker, starts=at)


class Migration(migrations.Migration):
    dependencies = [("directory", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
