"""Tasks whose end somebody waits for."""

import functools

from celery import shared_task

from .progress import Progress, Refused


def waited_for(function):
    """A task of function(progress, *args) → text for the user; `job` names who listens.

    It is tried again, ever later, after an OSError, and not after Refused.
    """

    @shared_task(bind=True, max_retries=3, name=f"{function.__module__}.{function.__name__}")
    @functools.wraps(function)
    def task(self, *args, job=""):
        progress = Progress(job)
        try:
            progress.begin()
            text = function(progress, *args)
        except Refused as error:
            progress.write(state="failed", text=str(error))
            return None
        except OSError as error:
            _again(self, progress, error)
            return None
        except Exception:
            progress.write(state="failed", text="It did not work; it is our fault.")
            raise
        progress.write(state="done", text=text)
        return text

    return task


def _again(task, progress, error):
    request = task.request
    if request.is_eager or request.called_directly or request.retries >= task.max_retries:
        progress.write(state="failed", text=f"It did not work: {error}")
        return
    progress.write(state="waiting", attempts=0)
    raise task.retry(exc=error, countdown=2**request.retries)
