"""Visits the site of a sandbox as people do, through its load balancer, and tells what it saw:
`python3 sandbox/visitor.py http://LB:PORT FILE`, with the .env that has the monitor's password;
a third word `search` leaves the search out, for a fleet without Solr.

Two people join; one follows the other, who uploads a picture and adds a session. Then it searches,
looks at the monitor's pages, and opens every page that a link leads to.
"""

import base64
import http.cookiejar
import json
import re
import secrets
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from urllib.parse import quote, urlencode, urljoin

SECONDS = 30  # that the workers, or Solr's slaves, may take
LINK = re.compile(r'(?:href|src)="(/[^"#]*)"')
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Visitor:
    """A browser with cookies of its own."""

    def __init__(self, site, **headers):
        self.site, self.headers = site, headers
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)

    def open(self, place, data=None, **headers):
        """Where that led to, and the page. Raises HTTPError for all but 200 and 202."""
        url = urljoin(f"{self.site}/", place)
        request = urllib.request.Request(url, data, self.headers | headers)
        with self.opener.open(request, timeout=30) as answer:
            return answer.url, answer.read()

    def get(self, place):
        return self.open(place)[1].decode()

    def fill_in(self, page, place=None, **fields):
        """Posts a form of a page, to itself or to another place; where that led to."""
        return self.open(place or page, urlencode(fields | self.token(page)).encode(), **FORM)[0]

    def token(self, page):
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(page))
        return {"csrfmiddlewaretoken": found[1]}

    def join(self, name):
        password = secrets.token_urlsafe(16)
        self.fill_in("/join/", username=name, password1=password, password2=password)

    def upload(self, page, place, picture):
        """Posts a picture as a script does; the address to poll."""
        mark = secrets.token_hex(16)
        parts = [f'{name}"\r\n\r\n{value}' for name, value in self.token(page).items()]
        parts += ['ajax"\r\n\r\n1', 'picture"; filename="me.png"\r\n\r\n']
        start = "".join(f'\r\n--{mark}\r\nContent-Disposition: form-data; name="{part}'
                        for part in parts)
        body = start.encode() + picture + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        return json.loads(self.open(place, body, **kind)[1])["job"]


def main(site, env, *without):
    now = time.strftime("%H%M%S")
    nia, tom = Visitor(site), Visitor(site)
    for person, name in ((nia, f"nia{now}"), (tom, f"tom{now}")):
        person.join(name)
    tom.fill_in(f"/people/nia{now}/", f"/people/nia{now}/follow/")
    add_session(nia, tom, f"Live from the demo {now}")
    resize(nia)
    if "search" not in without:
        search(tom, "Okafor")
    watch(site, password(env))
    print(f"{count_pages(nia)} pages of {site}, each a link on another: all answer 200")


def add_session(nia, tom, title):
    """Somebody adds a session, and who follows them reads of it."""
    nia.fill_in("/sessions/new/", conference=1, title=title, starts="2027-03-18T12:00",
                published="on")
    seconds = wait_for("the activity", lambda: title in tom.get("/stream/"))
    print(f"{tom.site}/stream/ told a follower of “{title}” after {seconds:.2f} s")


def resize(person):
    """A picture is uploaded, and resized by a worker."""
    job = person.upload("/speakers/1/", "/speakers/1/picture/", picture(900, 600))

    def says():
        return json.loads(person.open(job, Accept="application/json")[1])

    seconds = wait_for("the picture", lambda: says()["state"] not in ("waiting", "running"))
    place = re.search(r"/speakers/1/pictures/384-\w+", person.get("/speakers/1/"))[0]
    size = len(person.open(place)[1])
    print(f"A picture of 900 x 600, after {seconds:.2f} s: {says()['text']}")
    print(f"{person.site}{place} is {size} bytes")


def search(person, question):
    """Two kinds of result, once the index has them."""
    place = f"/search/?q={quote(question)}"

    def kinds():
        return sorted(set(re.findall(r'class="entry result (\w+)"', person.get(place))))

    wait_for("two kinds of result", lambda: len(kinds()) > 1)
    titles = re.findall(r'<h2><a href="[^"]+">(.+?)</a>', person.get(place))
    found = [re.sub("<[^>]+>", "", title) for title in titles]
    print(f"{person.site}{place} finds {' and '.join(kinds())}: {', '.join(found)}")


def watch(site, password):
    """Flower and the plots, which nobody sees without the password."""
    for place in ("/flower/", "/monitor/"):
        try:
            Visitor(site).open(place)
            sys.exit(f"{site}{place} needs no password")
        except urllib.error.HTTPError as error:
            assert error.code == 401, f"{site}{place}: {error}"
    login = base64.b64encode(f"monitor:{password}".encode()).decode()
    monitor = Visitor(site, Authorization=f"Basic {login}")
    workers = json.loads(monitor.get("/flower/workers?json=1"))["data"]
    print(f"{site}/flower/ knows {', '.join(sorted(one['hostname'] for one in workers))}")
    wait_for("a snapshot", lambda: "No snapshot" not in monitor.get("/monitor/"))
    print(f"{site}/monitor/ plots the queue (both: user monitor, MONITOR_PASSWORD of shared/.env)")


def count_pages(person):
    """How many pages there are, found by following links. HTTPError for one that fails."""
    known, left = {"/"}, ["/"]
    while left:
        page = person.open(left.pop())[1].decode(errors="replace")
        new = {link.replace("&amp;", "&") for link in LINK.findall(page)} - known
        known |= new
        left += new
    return len(known)


def wait_for(what, question):
    """How many seconds it took until the answer was yes."""
    begun = time.monotonic()
    while not question():
        if time.monotonic() - begun > SECONDS:
            sys.exit(f"{what}: not within {SECONDS} s")
        time.sleep(0.1)
    return time.monotonic() - begun


def picture(width, height):
    """A PNG whose colour changes from left to right."""
    row = b"\0" + bytes(value for x in range(width) for value in (x % 256, 110, 99))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row * height)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def password(env):
    with open(env, encoding="utf-8") as file:
        return re.search(r"^MONITOR_PASSWORD=(.+)$", file.read(), re.MULTILINE)[1].strip("'\"")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except urllib.error.URLError as error:
        sys.exit(f"{getattr(error, 'url', sys.argv[1])}: {error}")
