"""Run by the Python of a worker's release: `APP WORKER` answers what the worker does, `APP WORKER
release` which release it runs, and `APP WORKER drain` empties it before a restart.
"""

import json
import os
import signal
import sys
import time
from functools import partial

from celery.app.utils import find_app
from kombu.exceptions import OperationalError


class Worker:
    """One worker, asked over the broker."""

    def __init__(self, app, name):
        self.control = app.control
        self.name = name

    def ask(self, question, timeout=3):
        """The worker's own answer to a remote command; None where there is none in time."""
        said = self.control.broadcast(
            question, destination=[self.name], reply=True, timeout=timeout, limit=1)
        return said[0].get(self.name) if said else None

    def tasks(self, *questions):
        """How many tasks it has of each kind; empty where it does not answer."""
        found = {}
        for question in questions:
            tasks = self.ask(question)
            if tasks is None:
                return {}
            found[question] = len(tasks)
        return found

    def queues(self):
        """The names of the queues it takes tasks from."""
        return [queue["name"] for queue in self.ask("active_queues") or []]

    def take_from(self, queues, *, yes):
        """Tells it to take tasks from these queues, or to take no more."""
        tell = self.control.add_consumer if yes else self.control.cancel_consumer
        for name in queues:
            tell(name, destination=[self.name], reply=True, timeout=5)


def length(connection, name):
    """How many messages wait in a queue; a broker that has no such queue yet holds none."""
    try:
        return connection.default_channel.queue_declare(name, passive=True).message_count
    except connection.channel_errors:
        return 0


def answer(app, name):
    """Prints a worker's tasks and the lengths of its queues, or of the default one."""
    worker = Worker(app, name)
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1)
        tasks = worker.tasks("active", "reserved", "scheduled")
        names = (tasks and worker.queues()) or [app.conf.task_default_queue]
        queues = {name: length(connection, name) for name in names}
    print(json.dumps({"tasks": tasks, "queues": queues}))


def release(app, name):
    """Prints what the worker says it runs: its `release` command's {"pid", "release"}. One that
    has just begun may not listen yet, and what was asked before that is lost: asked again soon.
    """
    found = heard(partial(Worker(app, name).ask, "release", timeout=1))
    if not found:
        sys.exit(f"{name} does not answer")
    print(json.dumps(found))


def heard(question):
    """The answer to a question; a worker that is busy may miss the first one, and the second."""
    return question() or question() or question()


def drain(app, name):
    """The worker takes no new task; returns once it has none, or does not answer.

    A worker that is told to end in the moment in which it hands a task to a child gives it back to
    the broker, and the child runs it too. With none at hand there is no such moment.
    """
    worker = Worker(app, name)
    queues = heard(worker.queues)
    if not queues:
        return
    try:
        worker.take_from(queues, yes=False)
        while any(heard(partial(worker.tasks, "active", "reserved")).values()):
            time.sleep(0.1)
    except SystemExit:  # interrupted: nobody will restart it
        worker.take_from(queues, yes=True)
        raise


def end_by_exit(number, frame):
    sys.exit(128 + number)


def main(app, worker, mode="answer"):
    sys.path.insert(0, os.getcwd())
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_by_exit)
    {"answer": answer, "release": release, "drain": drain}[mode](find_app(app), worker)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OperationalError as error:
        sys.exit(f"the broker does not answer: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{sys.argv[2]} still has tasks in hand")
