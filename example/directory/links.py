"""Reads a page that a user names: from public addresses alone, and not more than is needed.

The address that was judged is the one that is connected to, so that a name can't lead to another
one meanwhile; each redirect is judged again.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from jobs.progress import Refused

SECONDS = 10  # for all of a page
REDIRECTS = 5
MOST_BYTES = 512_000
PORTS = {"http": 80, "https": 443}
HEADERS = {
    "User-Agent": "conference-directory",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # what is compressed may be any size
    "Connection": "close",
}


def title_and_icon(url: str) -> tuple[str, bytes | None]:
    """A page's title, and the bytes of its icon if it has one.

    Raises Refused for what we don't read, OSError for what may work later.
    """
    place, kind, body = fetch(url)
    if "html" not in kind:
        raise Refused("That is no web page.")
    head = Head()
    head.feed(body.decode("utf-8", "replace"))
    title = " ".join("".join(head.title).split())[:200]
    return title or urlsplit(place).hostname, _icon(urljoin(place, head.icon))


def _icon(url):
    try:
        return fetch(url)[2]
    except (Refused, OSError):
        return None


def fetch(url: str) -> tuple[str, str, bytes]:
    """Where the redirects ended, the content type and the first MOST_BYTES of the body."""
    deadline = time.monotonic() + SECONDS
    for _ in range(REDIRECTS + 1):
        status, headers, body = _get(url, deadline)
        if status not in (301, 302, 303, 307, 308):
            break
        url = urljoin(url, headers.get("Location", ""))
    else:
        raise Refused("The page leads on and on.")
    if status >= 500 or status == 429:
        raise OSError(f"the page's server answered {status}")
    if status != 200:
        raise Refused(f"The page's server answered {status}.")
    return url, headers.get("Content-Type", ""), body


def _get(url, deadline):
    scheme, host, port, path = _parts(url)
    connection = _connected(scheme, host, port, deadline)
    try:
        connection.request("GET", path, headers=HEADERS)
        answer = connection.getresponse()
        return answer.status, answer.headers, _read(answer, connection.sock, deadline)
    except (http.client.HTTPException, UnicodeError) as error:
        raise Refused("The page's server does not speak HTTP.") from error
    finally:
        connection.close()


def _parts(url):
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError) as error:
        raise Refused("Only http:// and https:// addresses are read.") from error
    if not parts.hostname or parts.username is not None:
        raise Refused("The address names no server, or a user.")
    query = f"?{parts.query}" if parts.query else ""
    return parts.scheme, parts.hostname, port, (parts.path or "/") + query


def _connected(scheme, host, port, deadline):
    """A connection to the address that was judged, whatever the name means a moment later."""
    kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[scheme]
    connection = kind(host, port, timeout=_left(deadline))
    address = judged(host, port)
    connection.sock = socket.create_connection((address, port), _left(deadline))
    if scheme == "https":
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    return connection


def judged(host: str, port: int) -> str:
    """An address of the host. Raises Refused if any of them is not public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise Refused("The address names no server.") from error
    for *_, (address, *_) in found:
        if not allowed(ipaddress.ip_address(address.partition("%")[0]), port):
            raise Refused("The address is not a public one.")
    return found[0][4][0]


def allowed(address, port: int) -> bool:
    """Public, on a web server's port; or in one of the networks that a setting names."""
    if any(address in ipaddress.ip_network(network) for network in settings.LINK_NETWORKS):
        return True
    if address.version == 6 and (address.ipv4_mapped or address.sixtofour or address.teredo):
        return False  # an IPv4 address in another coat
    translated = address.version == 6 and address in ipaddress.ip_network("64:ff9b::/96")
    public = address.is_global and not address.is_multicast and not translated
    return public and port in PORTS.values()


def _read(answer, sock, deadline):
    body = b""
    while len(body) < MOST_BYTES:
        if sock:
            sock.settimeout(_left(deadline))
        piece = answer.read1(65536)
        if not piece:
            break
        body += piece
    return body[:MOST_BYTES]


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"the page took longer than {SECONDS} s")
    return left


class Head(HTMLParser):
    """The title of a page and the address of its icon."""

    def __init__(self):
        super().__init__()
        self.title, self.icon, self.inside = [], "/favicon.ico", False

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.inside = tag == "title" and not self.title
        if tag == "link" and "icon" in (facts.get("rel") or "").lower().split():
            self.icon = facts.get("href") or self.icon

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.title.append(data)
