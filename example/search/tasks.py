"""The task that makes the index catch up."""

from celery import shared_task

from . import engine, flagged


@shared_task(bind=True, max_retries=5)
def index_flagged(self) -> int:
    """Indexes what is flagged; tried again, ever later, while the engine is down."""
    try:
        return flagged.index()
    except engine.errors() as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error
