"""Asked of a worker on its own host: sent to the release's Python as `python - APP WORKER`."""

import json
import os
import sys

from celery.app.utils import find_app


def counts(inspect, worker):
    """How many tasks the worker runs, holds and has scheduled; None where it does not answer."""
    questions = {"active": inspect.active, "reserved": inspect.reserved,
                 "scheduled": inspect.scheduled}
    answers = {name: (question() or {}).get(worker) for name, question in questions.items()}
    return {name: None if tasks is None else len(tasks) for name, tasks in answers.items()}


def lengths(app, inspect, worker):
    """queue → how many messages wait in it, for the queues that the worker consumes."""
    queues = (inspect.active_queues() or {}).get(worker) or [{"name": app.conf.task_default_queue}]
    with app.connection_for_read() as connection:
        return {queue["name"]: length(connection, queue["name"]) for queue in queues}


def length(connection, name):
    """How many messages wait in a queue; a broker that has no such queue yet holds none."""
    try:
        return connection.default_channel.queue_declare(name, passive=True).message_count
    except connection.channel_errors:
        return 0


def main(name, worker):
    sys.path.insert(0, os.getcwd())
    app = find_app(name)
    inspect = app.control.inspect(destination=[worker], timeout=5, limit=1)
    print(json.dumps({**counts(inspect, worker), "queues": lengths(app, inspect, worker)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
