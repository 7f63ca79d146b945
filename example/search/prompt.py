"""What a change sets off, by the setting SEARCH_UPDATES."""

import logging

from django.conf import settings
from django.db import transaction

log = logging.getLogger(__name__)


def indexing() -> None:
    """Once the transaction is there, and once for all of its changes."""
    act = ACTS[settings.SEARCH_UPDATES]
    waiting = [function for _, function, _ in transaction.get_connection().run_on_commit]
    if act and act not in waiting:
        transaction.on_commit(act, robust=True)


def at_once() -> None:
    """In this very process. An engine that is down leaves the flag, and no error page."""
    from . import engine, flagged

    try:
        flagged.index()
    except engine.errors() as error:
        log.warning("not indexed yet: %s", error)


def soon() -> None:
    """By a worker. A task that is lost costs nothing but time: beat looks after the flags."""
    from .tasks import index_flagged

    try:
        index_flagged.apply_async(retry=False)
    except index_flagged.OperationalError as error:
        log.warning("no task to index: %s", error)


ACTS = {"realtime": at_once, "flagged": soon, "batched": None}
