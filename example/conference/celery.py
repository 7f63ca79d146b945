"""The Celery application, and the remote command that tells which release a worker runs."""

import logging
import os

from celery import Celery, Task
from celery.exceptions import Ignore
from celery.worker.control import inspect_command

from . import release as running

log = logging.getLogger(__name__)
LATER = 10  # seconds; it must stay shorter than the visibility timeout


class Patient(Task):
    """A message that another release has sent, with arguments that this one does not know, is not
    lost: it is put off until workers of a release that knows them are there.
    """

    def __call__(self, *args, **kwargs):
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        try:
            self.__header__(*args, **kwargs)
        except TypeError as error:
            self.put_off(args, kwargs, error)
        return self.run(*args, **kwargs)

    def put_off(self, args, kwargs, error):
        """Not by retry(), which would count, and which checks the arguments too."""
        log.warning("%s: put off, it is another release's: %s", self.name, error)
        self.app.send_task(self.name, args, kwargs, task_id=self.request.id, countdown=LATER)
        raise Ignore


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conference.settings")
app = Celery("conference", task_cls=Patient)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@inspect_command()
def release(state, **kwargs):
    """Which release this worker runs."""
    return running.facts()
