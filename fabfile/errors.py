"""What can stop a run. Each class owns one exit code; release.sh uses the same numbers."""


class Stop(Exception):
    """A run that ends for a known reason: its text is one line for the person who reads it."""

    exit_code = 1


class Failed(Stop):
    """A step failed on a host."""


class Usage(Stop):
    """The command line, servers.json or fabric.yml is wrong."""

    exit_code = 2


class NotInstalled(Stop):
    """A program is missing on this machine."""

    exit_code = 3


class Locked(Stop):
    """Another run has the fleet."""

    exit_code = 4


class Unreachable(Stop):
    """A host could not be reached, or its host key was refused."""

    exit_code = 5


class Refused(Stop):
    """The checks before a change said no: nothing was changed."""

    exit_code = 6


class Reverted(Stop):
    """It failed after the switch, and every host went back."""

    exit_code = 7


class Stranded(Stop):
    """A host could not go back: somebody has to look at it now."""

    exit_code = 8


class Fenced(Stop):
    """A newer run holds a higher token: this one may change nothing."""

    exit_code = 9


class Interrupted(Stop):
    """Ctrl-C, or a signal that asks to end."""

    exit_code = 130


BY_CODE = {
    kind.exit_code: kind for kind in (Failed, Usage, NotInstalled, Locked, Unreachable, Refused)
} | {kind.exit_code: kind for kind in (Reverted, Stranded, Fenced, Interrupted)}


def worst(stops):
    """The one of several Stops that the exit code should tell: what needs a person most."""
    urgency = (8, 9, 130, 7, 4, 5, 3, 2, 6, 1)
    return min(stops, key=lambda stop: urgency.index(stop.exit_code))


def no_way_back(stops, error):
    """What to raise for hosts that could not go back after `error`: Stranded, or Fenced where it is
    only that a newer run has them, which decides what they serve.
    """
    lines = [*map(str, stops), f"after: {error}"]
    if all(isinstance(stop, Fenced) for stop in stops):
        return Fenced("\n".join(lines))
    return Stranded("\n".join(["some hosts could not go back:", *lines]))
