"""Every page of the directory and of people, for a visitor and for a member."""

from datetime import date

from directory.models import Conference, Session, Speaker
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import TestCase
from django.urls import reverse

Person = get_user_model()


class Visitor(TestCase):
    def setUp(self):
        cache.clear()

    def test_each_page_answers(self):
        pages = ["home", "speakers", "people", "join", "login"]
        places = [reverse(name) for name in pages]
        places += [model.objects.first().get_absolute_url()
                   for model in (Conference, Session, Speaker, Person)]
        for place in places:
            with self.subTest(place):
                self.assertContains(self.client.get(place), "<h1>")

    def test_a_session_links_its_conference_and_its_speakers(self):
        session = Session.objects.get(title="Queues that lose nothing")
        page = self.client.get(session.get_absolute_url())
        self.assertContains(page, "Harbour Python")
        self.assertContains(page, Speaker.objects.get(name="Ines Okafor").get_absolute_url())

    def test_what_is_not_published_is_nowhere(self):
        for model in (Conference, Session, Speaker):
            model.objects.update(published=False)
            self.assertEqual(self.client.get(model.objects.first().get_absolute_url()).status_code,
                             404)
        self.assertContains(self.client.get("/"), "Nothing is announced yet")
        self.assertContains(self.client.get("/speakers/"), "0 of them")

    def test_a_session_of_a_hidden_conference_is_hidden(self):
        session = Session.objects.first()
        Conference.objects.filter(pk=session.conference_id).update(published=False)
        self.assertEqual(self.client.get(session.get_absolute_url()).status_code, 404)

    def test_only_members_change_things(self):
        for place in ("/conferences/new/", "/speakers/1/edit/", "/sessions/new/"):
            self.assertRedirects(self.client.get(place), f"/login/?next={place}")
        self.client.post("/speakers/1/delete/")
        self.client.post("/people/mara/follow/")
        self.assertEqual(Speaker.objects.count(), 7)

    def test_joining_logs_in(self):
        new = {"username": "nia", "password1": "long enough 1", "password2": "long enough 1"}
        self.assertContains(self.client.post("/join/", new, follow=True), "Log out")

    def test_a_weak_password_is_refused(self):
        new = {"username": "nia", "password1": "nia", "password2": "nia"}
        self.assertContains(self.client.post("/join/", new), "too short", status_code=422)


class Member(TestCase):
    def setUp(self):
        self.me = Person.objects.create_user("nia", password="x")
        self.client.force_login(self.me)

    def test_a_conference_is_added_changed_and_taken_away(self):
        self.client.get("/")
        new = {"name": "Edge Days", "city": "Oslo", "starts": "2027-10-01", "ends": "2027-10-02",
               "published": "on"}
        page = self.client.post("/conferences/new/", new, follow=True)
        self.assertContains(page, "Oslo")
        self.assertContains(self.client.get("/"), "Edge Days")
        found = Conference.objects.get(name="Edge Days")
        self.client.post(f"/conferences/{found.pk}/edit/", {**new, "city": "Bergen"})
        self.assertContains(self.client.get("/"), "Bergen")
        self.client.post(f"/conferences/{found.pk}/delete/")
        self.assertNotContains(self.client.get("/"), "Edge Days")

    def test_a_form_shows_what_is_there(self):
        session = Session.objects.first()
        page = self.client.get(f"/sessions/{session.pk}/edit/")
        self.assertContains(page, 'value="2027-03-18T09:30"')

    def test_a_conference_does_not_end_before_it_starts(self):
        page = self.client.post("/conferences/new/", {
            "name": "x", "city": "y", "starts": date(2027, 1, 2), "ends": date(2027, 1, 1)})
        self.assertContains(page, "ends on the day it starts", status_code=422)

    def test_following_twice_is_following_once(self):
        for _ in range(2):
            self.client.post("/people/mara/follow/")
        self.assertEqual(list(self.me.follows.values_list("username", flat=True)), ["mara"])
        self.assertContains(self.client.get("/people/mara/"), "Unfollow")
        self.client.post("/people/mara/unfollow/")
        self.assertEqual(self.me.follows.count(), 0)

    def test_nobody_follows_themselves(self):
        self.assertEqual(self.client.post("/people/nia/follow/").status_code, 404)
