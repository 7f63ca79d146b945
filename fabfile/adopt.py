"""Taking over hosts that another tool deployed to."""

from .application import application, on_app_hosts
from .lock import locked


@on_app_hosts
def adopt(fleet):
    """Take over what another tool left as `current`, so that there is a release to go back to."""
    releases = application(fleet, "adopt")
    found = releases.call("preflight")
    releases.next_token = 1 + max((int(r.get("token", "0")) for r in found.values()), default=0)
    with locked(releases):
        adopted = releases.call("adopt")
    facts = {host: reply.get("adopted").partition(" ") for host, reply in adopted.items()}
    rows = [(host.name, date or "-", path) for host, (date, _, path) in facts.items()]
    fleet.table("", ("host", "release", "is"), rows)
