"""A release is looked at for a while after its switch: it stays well, visitors fare no worse."""

import time

from .env import env
from .errors import Failed
from .prove import prove
from .shell import line

EVERY = 2  # seconds
MINUTE = 60
FEW = 3  # errors that say nothing of a release

# Requests and server errors of the minute before the switch, and since: `before 200 1`, `after …`.
COUNT = """
moment() {{ date -Iseconds -d "@$(($(date +%s) - $1))"; }}
tail -n 200000 {} | awk -F '"' -v begin="$(moment {})" -v switched="$(moment {})" '
    {{ time = substr($1, index($1, "[") + 1) }}
    time < begin {{ next }}
    {{ when = time < switched ? "before" : "after"; count[when]++; bad[when] += $3 ~ /^ 5/ }}
    END {{ for (when in count) print when, count[when], bad[when] }}'
"""


def watch(fleet, batch, date, since):
    """Asks the processes of `batch` and reads the access logs of the fleet's nginx hosts until
    `prove.watch` seconds are over. `since`: when the switch began, in time.monotonic()'s seconds.

    Failed for a process that is no longer well, and where the share of server errors has grown by
    more than `prove.errors` percent.
    """
    fleet.say(f"watch      {env.prove.watch} s")
    until = time.monotonic() + env.prove.watch
    while time.monotonic() < until:
        time.sleep(EVERY)
        prove(batch.quiet(), date, step="watch")
        compare(counts(fleet.quiet().having("nginx"), time.monotonic() - since))


def counts(fleet, seconds):
    """(requests, errors) of the minute before the switch, `seconds` ago, and of the time since."""
    command = line(COUNT, env.nginx.access_log, int(seconds) + 1 + MINUTE, int(seconds) + 1)
    found = {"before": (0, 0), "after": (0, 0)}
    for outcome in fleet.run(command, step="watch").check().values():
        for entry in outcome.stdout.splitlines():
            when, *numbers = entry.split()
            found[when] = tuple(map(sum, zip(found[when], map(int, numbers), strict=True)))
    return found["before"], found["after"]


def compare(counted):
    """Failed if visitors fare worse than before."""
    before, after = counted
    more = share(*after) - share(*before)
    if after[1] > FEW and more > env.prove.errors / 100:
        raise Failed(f"{after[1]} of {after[0]} requests since the switch failed on a server, "
                     f"{before[1]} of {before[0]} in the minute before")


def share(count, errors):
    """Of all requests, how many failed: 0 to 1."""
    return errors / count if count else 0
