"""The camera's snapshots, and the page that plots them."""

import base64
from datetime import timedelta
from unittest.mock import patch

from celery.events.state import State
from conference.celery import app
from django.test import TestCase, override_settings
from django.utils import timezone
from monitor import camera
from monitor.models import Snapshot

PASSWORD = {"Authorization": "Basic " + base64.b64encode(b"monitor:secret").decode()}


def event(kind, **facts):
    now = timezone.now().timestamp()
    return {"type": kind, "hostname": "celery@queue1", "pid": 1, "clock": 1, "utcoffset": 0,
            "timestamp": now, "local_received": now} | facts


def busy():
    """What is known after a worker came up, ended one task and began another."""
    state = State()
    state.event(event("worker-heartbeat", freq=2))
    for uuid in "ab":
        state.event(event("task-received", uuid=uuid, name="directory.tasks.record"))
    state.event(event("task-succeeded", uuid="a", runtime=1.25, result="None"))
    return state


def shoot(state):
    with patch.object(camera, "waiting", return_value=7):
        camera.Camera(state, app=app).on_shutter(state)


class Monitor(TestCase):
    def test_a_shot_is_a_row(self):
        shoot(busy())
        shot = Snapshot.objects.get()
        self.assertEqual(shot.states, {"SUCCESS": 1, "RECEIVED": 1})
        self.assertEqual(shot.slowest, [["directory.tasks.record", 1.25, "celery@queue1"]])
        self.assertEqual((shot.waiting, shot.workers), (7, ["celery@queue1"]))

    def test_a_task_that_began_before_the_camera_looked(self):
        state = State()
        state.event(event("task-succeeded", uuid="a", runtime=1.25, result="None"))
        shoot(state)
        self.assertEqual(Snapshot.objects.get().slowest, [["?", 1.25, "celery@queue1"]])

    def test_old_ones_go(self):
        shoot(State())
        Snapshot.objects.update(taken=timezone.now() - camera.KEPT - timedelta(seconds=1))
        shoot(State())
        self.assertEqual(Snapshot.objects.count(), 1)

    def test_the_page_needs_the_password(self):
        for wanted in ("secret", ""):
            with override_settings(MONITOR_PASSWORD=wanted):
                self.assertEqual(self.client.get("/monitor/").status_code, 401)

    @override_settings(MONITOR_PASSWORD="secret")
    def test_the_page_plots(self):
        self.assertContains(self.client.get("/monitor/", headers=PASSWORD), "No snapshot")
        for _ in range(3):
            shoot(busy())
        page = self.client.get("/monitor/?hours=6", headers=PASSWORD)
        self.assertContains(page, "<polyline", 4)
        self.assertContains(page, "directory.tasks.record")
