"""What release.sh answers: `key value` lines."""

import time


class Reply:
    """The `key value` lines that a verb answered."""

    def __init__(self, text=""):
        self.lines = [tuple((entry + " ").split(" ", 1)) for entry in text.splitlines()]

    def all(self, key):
        """Every value given for `key`, in order."""
        return [value.strip() for name, value in self.lines if name == key]

    def get(self, key, default=""):
        """The last value given for `key`."""
        return (self.all(key) or [default])[-1]

    def date(self, key):
        """A release's date, or None where the host says `-` or nothing."""
        value = self.get(key, "-").split(" ")[0]
        return None if value == "-" else value


class Replies(dict):
    """host → Reply."""

    def dates(self, key):
        """host → the release's date given for `key`, or None."""
        return {host: reply.date(key) for host, reply in self.items()}


def moment(epoch):
    """Local date and time of a host's epoch second; `-` stays."""
    if not str(epoch).isdigit():
        return epoch
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(epoch)))


def replies(outcomes):
    """The Replies in Outcomes."""
    return Replies({host: Reply(outcome.stdout) for host, outcome in outcomes.items()})
