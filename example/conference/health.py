"""Asks all that the site needs, all at once: does it answer within two seconds?"""

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from django.conf import settings
from django.db import connection
from pymemcache.client.base import Client

SECONDS = 2


VITAL = ("database", "cache")  # without the others most pages are as ever


def report() -> dict[str, str]:
    """For the database, the cache, the broker and the search: "ok", or why not."""
    servers = settings.CACHES["default"].get("LOCATION", [])  # none: in this process's own memory
    broker, search = settings.CELERY_BROKER_URL, settings.HAYSTACK_CONNECTIONS["default"]
    questions = [("database", ask_database)]
    questions += [("cache", partial(ask_memcached, server)) for server in servers]
    questions += [("broker", partial(ask_redis, broker))] if broker else []
    questions += [("search", partial(ask_solr, search["URL"]))] if "URL" in search else []
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = pool.map(_trouble, (ask for _, ask in questions))
    troubles = {"database": [], "cache": [], "broker": [], "search": []}
    for (name, _), trouble in zip(questions, answers, strict=True):
        troubles[name] += filter(None, [trouble])
    return {name: "; ".join(found) or "ok" for name, found in troubles.items()}


def status(checks: dict[str, str]) -> str:
    """ok; degraded, when the search or the queue is down; failing, when no page can be made."""
    if any(checks[name] != "ok" for name in VITAL):
        return "failing"
    return "ok" if set(checks.values()) == {"ok"} else "degraded"


def ask_database() -> None:
    """Raises unless the database answers. On a connection of its own: this runs in a thread."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def ask_memcached(server: str) -> None:
    """Raises unless the server answers. Not through Django's cache, which forgives a dead one."""
    try:
        Client(server, connect_timeout=SECONDS, timeout=SECONDS).version()
    except Exception as error:
        raise ConnectionError(f"{server}: {error}") from error


def ask_redis(url: str) -> None:
    """Raises unless the broker answers."""
    import redis

    wait = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
    with redis.Redis.from_url(url, **wait) as client:
        client.ping()


def ask_solr(url: str) -> None:
    """Raises unless the core answers."""
    with urllib.request.urlopen(f"{url}/admin/ping", timeout=SECONDS) as answer:
        answer.read()


def _trouble(ask) -> str:
    try:
        ask()
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""
