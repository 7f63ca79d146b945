from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Snapshot",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("taken", models.DateTimeField(auto_now_add=True, db_index=True)),
                ("states", models.JSONField()),
                ("waiting", models.PositiveIntegerField()),
                ("slowest", models.JSONField()),
                ("workers", models.JSONField()),
            ],
            options={
                "ordering": ["taken"],
            },
        ),
    ]
