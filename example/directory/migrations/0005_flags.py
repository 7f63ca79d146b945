import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("directory", "0004_first_speakers"),
    ]

    operations = [
        migrations.AddField(
            model_name="conference",
            name="mark",
            field=models.UUIDField(default=uuid.uuid4, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="conference",
            name="needs_indexing",
            field=models.BooleanField(db_default=True, default=True, editable=False),
        ),
        migrations.AddField(
            model_name="session",
            name="mark",
            field=models.UUIDField(default=uuid.uuid4, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="session",
            name="needs_indexing",
            field=models.BooleanField(db_default=True, default=True, editable=False),
        ),
        migrations.AddField(
            model_name="speaker",
            name="mark",
            field=models.UUIDField(default=uuid.uuid4, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="speaker",
            name="needs_indexing",
            field=models.BooleanField(db_default=True, default=True, editable=False),
        ),
        migrations.AddIndex(
            model_name="conference",
            index=models.Index(
                condition=models.Q(("needs_indexing", True)),
                fields=["id"],
                name="conference_flagged",
            ),
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(
                condition=models.Q(("needs_indexing", True)), fields=["id"], name="session_flagged"
            ),
        ),
        migrations.AddIndex(
            model_name="speaker",
            index=models.Index(
                condition=models.Q(("needs_indexing", True)), fields=["id"], name="speaker_flagged"
            ),
        ),
    ]
