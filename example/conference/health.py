"""Asks the database and each cache server, all at once: does it answer within two seconds?"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from django.conf import settings
from django.db import connection
from pymemcache.client.base import Client

SECONDS = 2


def report() -> dict[str, str]:
    """For the database and for the cache: "ok", or why not."""
    questions = [("database", ask_database)]
    servers = settings.CACHES["default"].get("LOCATION", [])  # none: in this process's own memory
    questions += [("cache", partial(ask_memcached, server)) for server in servers]
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = pool.map(_trouble, (ask for _, ask in questions))
    troubles = {"database": [], "cache": []}
    for (name, _), trouble in zip(questions, answers, strict=True):
        troubles[name] += filter(None, [trouble])
    return {name: "; ".join(found) or "ok" for name, found in troubles.items()}


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


def _trouble(ask) -> str:
    try:
        ask()
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""
