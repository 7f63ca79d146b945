"""Whatever was changed, and whatever failed meanwhile: once the indexing has run with nothing
failing, the index equals the published rows.
"""

from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from unittest.mock import patch

from directory.models import Conference, Session, Speaker
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from search import engine, flagged, prompt
from search.models import Tombstone

MODELS = (Conference, Speaker, Session)
names = st.text("abc", min_size=1, max_size=3)
models = st.sampled_from(MODELS)
some = st.integers(0, 4)


class Killed(BaseException):
    """Nothing catches it: as if the worker had been killed here."""


class Index:
    """An engine in memory, which fails when told to, with some of its work done or all of it."""

    def __init__(self):
        self.documents = {}
        self.steps_left = None
        self.error = None
        self.meanwhile = None

    def write(self, model, rows):
        for row in rows:
            self.step()
            self.documents[f"{model._meta.label_lower}.{row.pk}"] = text(model, row)
        self.change()
        self.step()

    def remove(self, kind, keys):
        for key in keys:
            self.step()
            self.documents.pop(f"{kind}.{key}", None)
        self.step()

    def step(self):
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise self.error

    def change(self):
        act, self.meanwhile = self.meanwhile, None
        if act:
            act()

    @contextmanager
    def in_place(self):
        with patch.multiple(engine, write=self.write, remove=self.remove), patch.object(
            flagged, "BATCH", 2
        ):
            yield


def text(model, row):
    return engine.index(model).full_prepare(row)["text"]


def truth():
    """Every document that there should be."""
    return {
        f"{model._meta.label_lower}.{row.pk}": text(model, row)
        for model in MODELS
        for row in engine.index(model).index_queryset()
    }


class Changes(RuleBasedStateMachine):
    """What may happen to the rows, in any order, and an indexer that dies now and then."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self.index = Index()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        for model in (Session, Conference, Speaker):
            model.objects.all().delete()
        for name in "abc":
            self.new(Session, name).speakers.add(self.new(Speaker, name))
        self.index_well()

    def teardown(self):
        try:
            self.index.steps_left = None
            self.index_well()
            assert self.index.documents == truth()
            assert flagged.waiting() == 0
        finally:
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    def new(self, model, name):
        self.number += 1
        name = f"{name} {self.number}"
        if model is Session:
            home = Conference.objects.first() or self.new(Conference, name)
            at = datetime(2027, 1, 1, tzinfo=UTC)
            return Session.objects.create(title=name, starts=at, conference=home)
        day = date(2027, 1, 1)
        facts = {"starts": day, "ends": day} if model is Conference else {}
        return model.objects.create(name=name, **facts)

    def one(self, model, number):
        rows = list(model.objects.order_by("pk"))
        return rows[number % len(rows)] if rows else self.new(model, "new")

    @rule(model=models, name=names)
    def create(self, model, name):
        self.new(model, name)

    @rule(name=names, count=some)
    def bulk_create(self, name, count):
        self.number += 1
        Speaker.objects.bulk_create(
            Speaker(name=f"{name} {self.number} {n}", needs_indexing=False) for n in range(count)
        )

    @rule(model=models, number=some, about=names, partly=st.booleans())
    def save(self, model, number, about, partly):
        row = self.one(model, number)
        row.about = about
        row.save(**({"update_fields": ["about"]} if partly else {}))

    @rule(model=st.sampled_from([Conference, Speaker]), number=some, name=names)
    def rename(self, model, number, name):
        self.number += 1
        row = self.one(model, number)
        model.objects.filter(pk=row.pk).update(name=f"{name} {self.number}")

    @rule(model=models, about=names)
    def update(self, model, about):
        model.objects.update(about=about, needs_indexing=False)

    @rule(model=models, about=names)
    def bulk_update(self, model, about):
        rows = list(model.objects.all()[:2])
        for row in rows:
            row.about = about
        model.objects.bulk_update(rows, ["about"])

    @rule(model=models, number=some)
    def publish_or_hide(self, model, number):
        row = self.one(model, number)
        row.published = not row.published
        row.save()

    @rule(number=some, who=some, add=st.booleans(), backwards=st.booleans())
    def speak(self, number, who, add, backwards):
        session, speaker = self.one(Session, number), self.one(Speaker, who)
        many, one = (speaker.sessions, session) if backwards else (session.speakers, speaker)
        (many.add if add else many.remove)(one)

    @rule(number=some)
    def silence(self, number):
        self.one(Speaker, number).sessions.clear()

    @rule(model=models, number=some)
    def delete(self, model, number):
        self.one(model, number).delete()

    @rule(model=models)
    def delete_hidden(self, model):
        model.objects.filter(published=False).delete()

    @rule(number=some)
    def delete_and_bring_back(self, number):
        row = self.one(Speaker, number)
        key = row.pk
        row.delete()
        Speaker.objects.create(pk=key, name=f"back {key}")

    @rule()
    def index_well(self):
        with self.index.in_place():
            flagged.index()

    @rule(steps=st.integers(0, 12), killed=st.booleans())
    def index_in_vain(self, steps, killed):
        self.index.steps_left, self.index.error = steps, Killed() if killed else OSError("down")
        with self.index.in_place(), suppress(Killed, OSError), transaction.atomic():
            flagged.index()
        self.index.steps_left = None

    @rule(model=models, about=names)
    def index_while_something_changes(self, model, about):
        self.update(model, "before")
        self.index.meanwhile = lambda: self.update(model, about)
        with self.index.in_place():
            flagged.index()
        self.index.meanwhile = None


class Flagged(TestCase):
    def test_the_index_equals_the_published_rows(self):
        few = settings(max_examples=100, stateful_step_count=20, deadline=None,
                       database=None,
                       suppress_health_check=list(HealthCheck))
        run_state_machine_as_test(Changes, settings=few)

    def test_a_row_that_changes_while_it_is_indexed_stays_flagged(self):
        index = Index()
        index.meanwhile = lambda: Speaker.objects.filter(name="Mara Lindqvist").update(about="new")
        rows = Speaker.objects.all()
        with index.in_place():
            flagged._catch_up(Speaker, rows)
        flags = Speaker.objects.filter(needs_indexing=True)
        self.assertEqual([str(row) for row in flags], ["Mara Lindqvist"])

    def test_a_row_without_a_mark_is_indexed_once(self):
        Speaker._base_manager.update(mark=None, needs_indexing=True)
        with Index().in_place():
            flagged.index()
        self.assertEqual(flagged.waiting(), 0)

    def test_emptying_a_set_of_speakers_flags_the_sessions(self):
        session = Session.objects.get(title="Queues that lose nothing")
        speaker = session.speakers.first()
        for emptied in (session.speakers, speaker.sessions):
            session.speakers.set([speaker])
            with Index().in_place():
                flagged.index()
            emptied.clear()
            session.refresh_from_db()
            self.assertTrue(session.needs_indexing)

    def test_a_row_that_came_back_keeps_its_document(self):
        index = Index()
        with index.in_place():
            flagged.index()
            keys = list(Speaker.objects.values_list("pk", flat=True))
            Speaker.objects.filter(pk__in=keys).delete()
            # It is in the first batch, its tombstone in a later one.
            Speaker.objects.create(pk=keys[-1], name="Back")
            flagged.index()
        self.assertEqual(index.documents, truth())

    def test_a_deleted_row_leaves_a_tombstone(self):
        Conference.objects.filter(name="Small Servers").delete()
        kinds = sorted(Tombstone.objects.values_list("kind", flat=True))
        self.assertEqual(kinds, ["directory.conference", *["directory.session"] * 2])


class Prompted(TransactionTestCase):
    """SEARCH_UPDATES: what a change sets off."""

    def change(self, mode):
        with override_settings(SEARCH_UPDATES=mode), patch.object(flagged, "index") as index:
            with transaction.atomic():
                for number in range(3):
                    Speaker.objects.create(name=f"{mode} {number}")
                index.assert_not_called()
            return index.call_count

    def test_realtime_and_flagged_index_once_after_the_commit(self):
        self.assertEqual(self.change("realtime"), 1)
        self.assertEqual(self.change("flagged"), 1)

    def test_batched_leaves_it_to_beat(self):
        self.assertEqual(self.change("batched"), 0)

    def test_an_engine_that_is_down_is_no_error_for_the_editor(self):
        with override_settings(SEARCH_UPDATES="realtime"), patch.object(
            flagged, "index", side_effect=OSError("down")
        ), self.assertLogs(prompt.log, "WARNING"):
            Speaker.objects.create(name="Nia")
        self.assertTrue(Speaker.objects.get(name="Nia").needs_indexing)
