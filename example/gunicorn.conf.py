"""gunicorn reads this file by itself from the folder it starts in."""

import os

wsgi_app = "conference.wsgi"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))  # for each of the unit's masters
threads = 4
graceful_timeout = 30  # what a request may still take after TERM
control_socket_disable = True  # two masters with one HOME would fight for its socket
