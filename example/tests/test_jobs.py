"""Pictures, links and schedules, and how a user waits for them."""

import csv
import http.server
import ipaddress
import threading
import time
from contextlib import contextmanager, suppress
from io import BytesIO, StringIO
from unittest.mock import patch

from directory import links, pictures, tasks
from directory.models import Conference, Picture, Session, Speaker
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import SimpleTestCase, TestCase, override_settings
from jobs import progress
from jobs.progress import Refused
from kombu.exceptions import OperationalError
from PIL import Image

JSON = {"Accept": "application/json"}


def photo(size=(60, 30), kind="JPEG", **facts):
    """A picture, red on its left and blue on its right."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    out = BytesIO()
    image.save(out, kind, **facts)
    return out.getvalue()


def turned():
    """The same, as a camera held upright notes it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    return photo(exif=exif)


class Pictures(SimpleTestCase):
    def test_three_sizes_of_each_kind(self):
        for kind in pictures.KINDS:
            found = pictures.resized(photo(kind=kind))
            sizes = {size: Image.open(BytesIO(data)).size for size, data in found.items()}
            self.assertEqual(sizes, {size: (size, size) for size in (96, 384, 768)})

    def test_a_picture_is_turned_upright_and_what_the_camera_noted_is_gone(self):
        small = Image.open(BytesIO(pictures.resized(turned())[96]))
        above, below = small.getpixel((48, 10)), small.getpixel((48, 86))
        self.assertGreater(above[0], above[2])
        self.assertGreater(below[2], below[0])
        self.assertFalse(small.getexif())

    def test_bombs_wrong_types_and_damage_are_refused(self):
        for data in (photo((9000, 9000), "PNG"), photo(kind="GIF"), b"", b"text" * 99,
                     photo()[:200], b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"):
            with self.subTest(data[:9]), self.assertRaises(Refused):
                pictures.resized(data)


@contextmanager
def website(pages):
    """A server on this machine: path → (status, headers, body, seconds)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body, seconds = pages.get(self.path, (404, {}, b"", 0))
            time.sleep(seconds)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<head><title> My &amp;\n page</title><link rel='shortcut icon' href=/i.png></head>"
here = override_settings(LINK_NETWORKS=["127.0.0.1/32"])


class Links(SimpleTestCase):
    def test_title_and_icon(self):
        pages = {"/": (200, HTML, PAGE, 0), "/i.png": (200, {}, b"icon", 0)}
        with website(pages) as url, here:
            self.assertEqual(links.title_and_icon(url), ("My & page", b"icon"))

    def test_a_page_without_title_has_its_hosts_name_and_no_icon_is_no_error(self):
        with website({"/": (200, HTML, b"", 0)}) as url, here:
            self.assertEqual(links.title_and_icon(url), ("127.0.0.1", None))

    def test_a_server_of_ours_is_not_asked(self):
        with website({}) as url, self.assertRaisesMessage(Refused, "not a public one"):
            links.fetch(url)

    def test_addresses_that_are_not_public_are_refused_in_any_spelling(self):
        hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "10.0.0.1", "[::1]",
                 "192.168.1.1", "169.254.169.254", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
                 "[2002:7f00:1::]", "[fe80::1]", "224.0.0.1", "100.64.0.1"]
        for host in hosts:
            with self.subTest(host), self.assertRaises((Refused, OSError)):
                links.judged(links._parts(f"http://{host}/")[1], 80)
        for url in ("file:///etc/passwd", "ftp://example.org/", "http://a@example.org/", "http://",
                    "gopher://x", "http://[", "http://x:99999/"):
            with self.subTest(url), self.assertRaises(Refused):
                links.fetch(url)

    def test_only_a_web_servers_port(self):
        public = ipaddress.ip_address("93.184.216.34")
        self.assertTrue(links.allowed(public, 443))
        self.assertFalse(links.allowed(public, 6379))

    def test_one_private_address_among_others_is_enough_to_refuse(self):
        found = [(2, 1, 6, "", (a, 80)) for a in ("93.184.216.34", "10.0.0.1")]
        with patch("socket.getaddrinfo", return_value=found), self.assertRaises(Refused):
            links.judged("example.org", 80)

    def test_a_redirect_is_judged_again(self):
        pages = {"/": (302, {"Location": "http://127.0.0.2:1/"}, b"", 0)}
        with website(pages) as url, here, self.assertRaisesMessage(Refused, "not a public one"):
            links.fetch(url)

    def test_redirects_end(self):
        with website({"/": (302, {"Location": "/"}, b"", 0)}) as url, here, \
                self.assertRaisesMessage(Refused, "on and on"):
            links.fetch(url)

    def test_a_long_body_is_cut_and_a_slow_one_left(self):
        pages = {"/": (200, HTML, b"x" * 3_000_000, 0), "/slow": (200, HTML, b"", 2)}
        with website(pages) as url, here:
            self.assertEqual(len(links.fetch(url)[2]), links.MOST_BYTES)
            with patch.object(links, "SECONDS", 0.3), self.assertRaises(OSError):
                links.fetch(f"{url}/slow")

    def test_what_may_work_later_is_told_from_what_will_not(self):
        with website({"/": (503, {}, b"", 0)}) as url, here:
            self.assertRaises(OSError, links.fetch, url)
            self.assertRaises(Refused, links.fetch, f"{url}/missing")


class Ordering(TestCase):
    def setUp(self):
        cache.clear()
        self.me = get_user_model().objects.create_user("nia")
        self.client.force_login(self.me)
        self.speaker = Speaker.objects.get(name="Mara Lindqvist")
        self.conference = Conference.objects.get(name="Harbour Python")

    def upload(self, data, **kwargs):
        file = SimpleUploadedFile("me.jpg", data)
        return self.client.post(f"/speakers/{self.speaker.pk}/picture/", {"picture": file},
                                **kwargs)

    def test_a_form_leads_to_a_page_that_says_done_and_shows_the_picture(self):
        page = self.upload(photo(), follow=True)
        self.assertContains(page, "three sizes")
        shown = self.client.get(self.speaker.get_absolute_url())
        place = Picture.objects.get(speaker=self.speaker, size="384").get_absolute_url()
        self.assertContains(shown, place)
        answer = self.client.get(place)
        self.assertEqual(answer.headers["Content-Type"], "image/jpeg")
        self.assertIn("immutable", answer.headers["Cache-Control"])

    def test_a_script_is_answered_202_and_polls(self):
        for extra in ({"headers": JSON}, {}):
            data = {"format": "csv"} | ({} if extra else {"ajax": "1"})
            answer = self.client.post(f"/conferences/{self.conference.pk}/report/", data, **extra)
            self.assertEqual(answer.status_code, 202)
            job = self.client.get(answer.json()["job"], headers=JSON).json()
            self.assertEqual((job["state"], job["done"], job["total"]), ("done", 3, 3))
            self.assertIn(b"Queues that lose nothing", self.client.get(job["file"]).content)

    def test_the_upload_itself_is_shown_to_nobody(self):
        self.upload(photo())
        place = Picture.objects.get(size="upload").get_absolute_url()
        self.assertEqual(self.client.get(place).status_code, 404)

    def test_what_is_refused_is_said(self):
        self.assertContains(self.upload(b"text", follow=True), "no picture of a kind")
        self.assertEqual(self.upload(b"").status_code, 422)

    def test_a_link_is_read(self):
        pages = {"/": (200, HTML, PAGE, 0), "/i.png": (200, {}, photo(kind="PNG"), 0)}
        with website(pages) as url, here:
            self.client.post(f"/speakers/{self.speaker.pk}/link/", {"link": url})
        page = self.client.get(self.speaker.get_absolute_url())
        self.assertContains(page, "My &amp; page")
        self.assertContains(page, "/pictures/icon-")

    def test_a_pdf(self):
        answer = self.client.post(f"/conferences/{self.conference.pk}/report/",
                                  {"format": "pdf"}, headers=JSON)
        file = self.client.get(f"{answer.json()['job']}file")
        self.assertTrue(file.content.startswith(b"%PDF"))
        self.assertIn("schedule-1.pdf", file.headers["Content-Disposition"])

    def test_no_cell_of_a_csv_is_a_formula(self):
        Session.objects.filter(conference=self.conference).update(title="=1+1")
        answer = self.client.post(f"/conferences/{self.conference.pk}/report/",
                                  {"format": "csv"}, headers=JSON)
        text = self.client.get(f"{answer.json()['job']}file").content.decode("utf-8-sig")
        self.assertEqual({row[1] for row in list(csv.reader(StringIO(text)))[1:]}, {"'=1+1"})

    def test_nobody_elses_job_is_seen(self):
        place = self.upload(photo()).headers["Location"]
        self.client.force_login(get_user_model().objects.create_user("other"))
        self.assertEqual(self.client.get(place).status_code, 404)
        self.assertEqual(self.client.get(f"{place}file").status_code, 404)

    def test_a_forgotten_job_has_expired(self):
        place = self.upload(photo()).headers["Location"]
        cache.clear()
        self.assertContains(self.client.get(place), "Expired")
        self.assertEqual(self.client.get(place, headers=JSON).json()["state"], "expired")

    def test_a_job_that_waits_has_a_page_that_looks_again(self):
        name = progress.create(self.me.pk)
        self.assertContains(self.client.get(f"/jobs/{name}/"), 'http-equiv="refresh"')

    def test_a_worker_that_died_is_noticed(self):
        name = progress.create(self.me.pk)
        progress.Progress(name).write(state="running", since=time.time() - 66)
        self.assertContains(self.client.get(f"/jobs/{name}/"), "That failed")

    def test_a_job_that_ends_its_worker_is_not_tried_for_ever(self):
        name = progress.create(self.me.pk)
        for _ in range(progress.ATTEMPTS):
            progress.Progress(name).begin()
        tasks.report(self.conference.pk, "csv", job=name)
        self.assertEqual(progress.find(name)["state"], "failed")

    def test_a_queue_that_is_down_is_said(self):
        with patch.object(tasks.resize_picture, "apply_async", side_effect=OperationalError):
            self.assertContains(self.upload(photo(), follow=True), "queue does not answer")

    def test_tasks_are_functions_too_and_may_run_twice(self):
        tasks.keep_picture(self.speaker.pk, "upload", photo(), "")
        for _ in range(2):
            self.assertIn("three sizes", tasks.resize_picture(self.speaker.pk))
        self.assertEqual(Picture.objects.count(), 4)

    def test_a_page_whose_server_is_down_is_said(self):
        with patch.object(links, "title_and_icon", side_effect=OSError("refused")):
            page = self.client.post(f"/speakers/{self.speaker.pk}/link/",
                                    {"link": "http://x.example/"}, follow=True)
        self.assertContains(page, "It did not work: refused")
