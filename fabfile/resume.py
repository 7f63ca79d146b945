"""A deploy that its run could not finish, as the locks on its hosts tell of it."""

import re

from .errors import Refused

PURPOSE = "deploy {} of {}"
UNFINISHED = re.compile(r"deploy (\d{14}) of ([0-9a-f]{7,})")


def purpose(date, revision):
    """What the locks say that a deploy does, for people and for unfinished()."""
    return PURPOSE.format(date, revision[:10])


def unfinished(before):
    """The date and the revision of the one deploy that hosts were left in, from their preflights.

    Refused if there is none, or more than one. A host that had begun nothing yet, or has ended it,
    says nothing. From here on `before` says what was live before that deploy.
    """
    said = {host: UNFINISHED.match(reply.get("unfinished")) for host, reply in before.items()}
    found = {match.groups() for match in said.values() if match}
    if not found:
        raise Refused("no host was left in a deploy that could be resumed; fab deploy begins one")
    if len(found) > 1:
        seen = "\n".join(f"{host.name}: {match[0]}" for host, match in said.items() if match)
        raise Refused(f"hosts were left in different deploys; fab deploy begins another\n{seen}")
    [(date, revision)] = found
    for reply in before.values():
        go_back_to(reply, date)
    return date, revision


def go_back_to(reply, date):
    """A host that has switched to `date`, but not for good, had another release before."""
    left, _, to = reply.get("pending").partition(" ")
    if to == date:
        reply.lines.append(("current", left))
