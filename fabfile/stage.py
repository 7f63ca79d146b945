"""Gives every host what it lacks of an artifact: nothing travels twice."""

from . import delta, wheels
from .release import facts_of
from .reply import replies


def stage(releases, artifact, before):
    """Stages the artifact on hosts of which `before`, their preflight, says what they have.

    A host that has a release is sent what changed, and verifies all of it; where that fails it is
    sent the whole artifact, once. Replies.
    """
    wheels.push(releases, artifact)
    bases = {host: reply.date("current") for host, reply in before.items() if has_base(reply)}
    sent = deltas(releases, artifact, {host: before[host] for host in bases})
    if len(sent) < len(before):
        sent = dict.fromkeys(before, artifact.packed()) | sent
    outcomes = releases.outcomes(
        "stage",
        lambda host: facts_of(artifact) | {"BASE": bases.get(host)},
        stdin=sent.get,
    )
    whole = [host for host, o in outcomes.failed.items() if o.code == 1 and host in bases]
    for host in whole:
        releases.fleet.say(f"is sent the whole artifact: {outcomes[host].reason}", host)
    if whole:
        again = releases.outcomes("stage", facts_of(artifact), stdin=artifact.packed(), hosts=whole)
        outcomes.update(again)
    return replies(outcomes.check())


def has_base(reply):
    """Whether a host's current release was staged by us, so that its manifest is known."""
    return reply.date("current") and reply.get("manifest", "-") != "-"


def deltas(releases, artifact, before):
    """host → Path of what it lacks; built once for all hosts that have and need the same."""
    paths, built = {}, {}
    for host, reply in before.items():
        key = reply.get("manifest"), tuple(shared(releases, host))
        if key not in built:
            built[key] = lacking(releases, artifact, host, reply, key[1])
        paths[host] = built[key]
    return paths


def lacking(releases, artifact, host, reply, always):
    """What one host lacks; its manifest is asked of it where it is not in the cache."""

    def fetch():
        values = {"DATE": reply.date("current")}
        return releases.outcomes("manifest", values, hosts=[host], step="").check()[host].stdout

    base = delta.manifest(artifact, reply.get("manifest"), fetch)
    return delta.build(artifact, base, always=always)


def shared(releases, host):
    """A host's shared paths: a link stands there, whatever the manifest of its release says."""
    values = releases.per_host(host)
    text = "\n".join(values.get(name, "") for name in ("SHARED_FOLDERS", "SHARED_FILES"))
    return [path for path in text.split("\n") if path]
