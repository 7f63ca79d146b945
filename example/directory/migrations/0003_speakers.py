import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("directory", "0002_first_conferences"),
    ]

    operations = [
        migrations.CreateModel(
            name="Speaker",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                ("about", models.TextField(blank=True)),
                ("link", models.URLField(blank=True)),
                ("link_title", models.CharField(blank=True, editable=False, max_length=200)),
                ("published", models.BooleanField(db_default=True, default=True)),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.AddField(
            model_name="conference",
            name="published",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="session",
            name="about",
            field=models.TextField(blank=True, db_default=""),
        ),
        migrations.AddField(
            model_name="session",
            name="published",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="session",
            name="speakers",
            field=models.ManyToManyField(
                blank=True, related_name="sessions", to="directory.speaker"
            ),
        ),
        migrations.CreateModel(
            name="Picture",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("size", models.CharField(max_length=10)),
                ("digest", models.CharField(max_length=64)),
                ("kind", models.CharField(max_length=20)),
                ("data", models.BinaryField()),
                (
                    "speaker",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pictures",
                        to="directory.speaker",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("speaker", "size"), name="picture_once")
                ],
            },
        ),
        # The column stays, with a default: the release before this one reads and writes it, during
        # the deploy and after a rollback. A later release takes it away.
        migrations.AlterField(
            model_name="session",
            name="speaker",
            field=models.CharField(max_length=100, db_default=""),
        ),
    ]
