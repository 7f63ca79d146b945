"""gunicorn reads this file by itself from the folder it starts in."""

wsgi_app = "conference.wsgi"
workers = 2
graceful_timeout = 30  # what a request may still take after TERM
control_socket_disable = True  # two masters with one HOME would fight for its socket
