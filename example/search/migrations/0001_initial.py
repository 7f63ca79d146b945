from django.db import migrations, models


def add_shards(apps, schema_editor):
    Shard = apps.get_model("search", "Shard")
    Shard.objects.bulk_create(Shard(pk=number) for number in range(16))


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Shard",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Tombstone",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(max_length=100)),
                ("key", models.BigIntegerField()),
            ],
        ),
        migrations.RunPython(add_shards, migrations.RunPython.noop),
    ]
