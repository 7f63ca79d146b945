"""The activity stream: with a real Redis where INBOX_URL names one, else from the database."""

from io import StringIO
from unittest import skipUnless
from unittest.mock import patch

from directory.models import Session
from django.conf import settings
from django.core.management import call_command
from django.test import TestCase, override_settings
from people.models import Follow, Person
from redis.exceptions import ConnectionError
from stream import activities, inbox, tasks
from stream.models import Activity

on_redis = skipUnless(settings.INBOX_URL, "needs INBOX_URL")


class Stream(TestCase):
    def setUp(self):
        if inbox.connection():
            inbox.connection().flushdb()
        self.author, self.reader = (Person.objects.create_user(name) for name in ("ada", "bob"))
        self.follow(self.reader, self.author)
        self.client.force_login(self.reader)

    def follow(self, follower, followed):
        Follow.objects.create(follower=follower, followed=followed)

    def publish(self, count=1, actor=None, **what):
        what = what or {"session": Session.objects.first()}
        with self.captureOnCommitCallbacks(execute=True):
            return [activities.publish(actor or self.author, **what) for _ in range(count)]

    def read(self, before=None):
        return activities.read(self.reader.pk, before)

    def keys(self):
        return [activity.pk for activity in self.read()[0]]

    def test_followers_hear_of_it_newest_first_and_others_do_not(self):
        first, second = self.publish(2)
        self.publish(actor=Person.objects.create_user("eve"))
        self.assertEqual(self.keys(), [second.pk, first.pk])

    def test_a_page_links_to_older_ones_until_there_are_none(self):
        wanted = [activity.pk for activity in self.publish(45)][::-1]
        seen, place = [], "/stream/"
        while place:
            page = self.client.get(place)
            seen += [activity.pk for activity in page.context["activities"]]
            older = page.context["older"]
            place = f"/stream/?before={older}" if older else None
        self.assertEqual(seen, wanted)

    def test_exactly_one_page_has_nothing_older(self):
        self.publish(20)
        found, older = self.read()
        self.assertEqual((len(found), older), (20, None))

    def test_unfollowing_and_deleting_is_honoured(self):
        first, second = self.publish(2)
        second.delete()
        self.assertEqual(self.keys(), [first.pk])
        self.client.post(f"/people/{self.author}/unfollow/")
        self.assertEqual(self.keys(), [])

    def test_a_deleted_or_hidden_session_is_not_shown(self):
        self.publish()
        Session.objects.update(published=False)
        self.assertEqual(self.keys(), [])
        Session.objects.all().delete()
        self.assertEqual(self.keys(), [])

    def test_following_shows_what_was_before(self):
        eve = Person.objects.create_user("eve")
        [activity] = self.publish(actor=eve)
        self.read()
        self.client.post("/people/eve/follow/")
        self.assertEqual(self.keys(), [activity.pk])

    def test_adding_a_session_and_following_are_told(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.client.force_login(self.author)
            self.client.post("/sessions/new/", {"conference": 1, "title": "New", "published": "on",
                                                "starts": "2027-03-18T12:00"})
            self.client.post("/people/mara/follow/")
        self.client.force_login(self.reader)
        page = self.client.get("/stream/")
        self.assertContains(page, "New")
        self.assertContains(page, "mara")

    def test_whom_many_follow_is_looked_up_by_the_reader(self):
        small = self.publish(3)
        with override_settings(STREAM_PULL_ABOVE=0):
            [big] = self.publish()
        self.assertTrue(big.pulled)
        after = self.publish(30)
        wanted = [activity.pk for activity in [*small, big, *after]][::-1]
        first, older = self.read()
        second, end = self.read(older)
        self.assertEqual([activity.pk for activity in [*first, *second]], wanted)
        self.assertIsNone(end)

    def test_odd_addresses_are_no_error(self):
        for before in ("x", "-1", "9" * 40, "²", ""):
            self.assertEqual(self.client.get("/stream/", {"before": before}).status_code, 200)


@on_redis
class OnRedis(Stream):
    def members(self):
        found = inbox.connection().zrange(inbox.key(self.reader.pk), 0, -1)
        return [item for item in found if item != inbox.MARK.encode()]

    def test_a_task_that_runs_twice_delivers_once(self):
        [activity] = self.publish()
        tasks.fan_out(activity.pk)
        self.assertEqual(self.members(), [b"%d" % activity.pk])
        activity.refresh_from_db()
        self.assertTrue(activity.spread)

    def test_the_newest_are_kept(self):
        self.read()
        with patch.object(inbox, "KEEP", 5):
            wanted = self.publish(9)[-5:]
        self.assertEqual(self.members(), [b"%d" % activity.pk for activity in wanted])
        self.assertEqual(self.keys(), [activity.pk for activity in wanted][::-1])

    def test_followers_are_told_in_chunks(self):
        people = Person.objects.bulk_create(Person(username=f"p{n}") for n in range(25))
        Follow.objects.bulk_create(Follow(follower=p, followed=self.author) for p in people)
        with patch.object(inbox, "CHUNK", 10), patch.object(
            tasks.deliver, "delay", wraps=tasks.deliver.delay
        ) as delay:
            self.publish()
        self.assertEqual([len(call.args[1]) for call in delay.call_args_list], [10, 10, 6])

    def test_an_emptied_redis_is_filled_by_reading_or_at_once(self):
        wanted = [activity.pk for activity in self.publish(3)][::-1]
        inbox.connection().flushdb()
        self.publish(actor=self.reader)
        self.assertEqual(self.keys(), wanted)
        inbox.connection().flushdb()
        call_command("rebuild_inboxes", stdout=StringIO())
        self.assertEqual(len(self.members()), 3)

    def test_what_was_delivered_to_an_emptied_redis_hides_nothing_older(self):
        first = self.publish(2)
        inbox.connection().flushdb()
        last = self.publish()
        self.assertEqual(self.keys(), [activity.pk for activity in [*first, *last]][::-1])

    def test_without_redis_the_database_answers(self):
        wanted = [activity.pk for activity in self.publish(2)][::-1]
        with patch.object(inbox, "page", side_effect=ConnectionError("down")), self.assertLogs(
            activities.log, "WARNING"
        ):
            self.assertEqual(self.keys(), wanted)

    def test_an_activity_whose_task_was_lost_is_found_by_beat(self):
        activity = activities.publish(self.author, session=Session.objects.first())
        Activity.objects.update(created="2020-01-01T00:00Z")
        tasks.fan_out_missed()
        self.assertEqual(self.members(), [b"%d" % activity.pk])
