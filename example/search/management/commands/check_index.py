"""Compares the index with the database."""

from django.core.management.base import BaseCommand, CommandError

from search import engine


class Command(BaseCommand):
    help = "Print for each kind the published rows, the documents and the flagged rows."

    def handle(self, **options):
        try:
            rows = [self.compare(model) for model in engine.models()]
        except engine.errors() as error:
            raise CommandError(f"{engine.name()} does not answer: {error}") from error
        self.stdout.write(f"{'':22}{'published':>10}{'indexed':>10}{'flagged':>10}")
        for name, *numbers in rows:
            self.stdout.write(f"{name:22}" + "".join(f"{number:>10}" for number in numbers))
        wrong = [name for name, published, indexed, _ in rows if published != indexed]
        if wrong:
            raise CommandError(f"the index differs: {', '.join(wrong)}; run index_flagged --all")

    def compare(self, model):
        flagged = model._base_manager.filter(needs_indexing=True).count()
        published = engine.index(model).index_queryset().count()
        return model._meta.label_lower, published, engine.count(model), flagged
