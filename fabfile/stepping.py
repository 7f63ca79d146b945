"""release.sh killed between any two of its steps, in a home of its own: at every one of them, with
a look at what the next run finds and whether it gets through.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from . import artifact, delta
from .errors import Failed
from .release import SCRIPT
from .reply import Reply

ONE, TWO, THREE, FOUR, FIVE = DATES = [f"2026010100000{number}" for number in range(1, 6)]
# All that changes something on disk; what the shell itself writes is synced by one of them.
PROGRAMS = ("chmod", "cp", "ln", "mkdir", "mv", "rm", "sync", "tar")
# Counts itself, and at its turn kills the whole verb: what follows the step before never happens.
COUNTED = """#!/bin/sh
printf . >>"$STEPS"
read -r steps <"$STEPS" || :
[ "${{#steps}}" != "$KILL_AT" ] || kill -9 0
exec {} "$@"
"""
DUE = 100  # seconds of a lease for which the one that there is has to be written anew
PREPARED = {"commit": "publish", "revert": "publish", "lock": "publish"}
VALUES = {
    "lock": {"TAKE": "1"}, "stage": {"DATE": FIVE},
    "publish": {"DATE": TWO, "WAIT": "60", "stdin": b"go\n"},
    "commit": {"DATE": TWO}, "revert": {}, "clean": {"KEEP": "1", "UNLOCK": "yes"}, "unlock": {},
    "setup": {},
}


class Home:
    """A home folder in which release.sh runs as it does over SSH."""

    def __init__(self, folder, script):
        self.folder, self.script = folder, script
        self.home, self.bin, self.steps = (folder / name for name in ("home", "bin", "steps"))
        self.site = self.home / "site"
        self.token = None
        for path in (self.home, self.bin):
            path.mkdir()
        for program in PROGRAMS:
            path = self.bin / program
            path.write_text(COUNTED.format(shutil.which(program)))
            path.chmod(0o755)

    def ask(self, verb, *, stdin=None, kill_at=None, **values):
        """(exit code, Reply, stderr) of one verb."""
        path = f"{self.bin}:{os.environ['PATH']}" if kill_at else os.environ["PATH"]
        ours = {"HOME": self.home, "PATH": path, "STEPS": self.steps, "KILL_AT": kill_at,
                "DEPLOY_TO": "site", "OWNER": "ann@laptop", "TOKEN": self.token,
                "SHARED_FOLDERS": "media", "REVISION": "abc", "ARTIFACT": "abc"}
        self.steps.write_text("")
        done = subprocess.run(
            ["sh", self.script, verb], input=stdin or b"", capture_output=True, cwd=self.home,
            start_new_session=True, check=False,
            env={name: str(value) for name, value in {**ours, **values}.items() if value})
        return done.returncode, Reply(done.stdout.decode()), done.stderr.decode()

    def do(self, verb, **values):
        """The Reply of a verb that has to succeed. Failed if it does not."""
        code, reply, stderr = self.ask(verb, **values)
        if code:
            raise Failed(f"the next {verb} ended with {code}: {stderr.strip()}")
        return reply

    def lock(self, **values):
        self.token = self.do("lock", **values).get("token")

    def artifact(self, text):
        files = {"page": text.encode(), **{f"d/{n}": b"%d" % n for n in range(3)}}
        return artifact.from_files(files, cache=self.folder / "cache")

    def stage(self, date, base=""):
        """What a stage of this date is asked and sent: the whole, or over a base what changed."""
        made = self.artifact(date)
        sent = made.packed()
        if base:
            before = self.site.joinpath("releases", base, ".manifest").read_text()
            sent = delta.build(made, before, always=["media"])
        return {"DATE": date, "BASE": base, "MANIFEST_SHA256": made.manifest_sha256,
                "stdin": sent.read_bytes()}

    def prepare(self, verb):
        """ONE and TWO were live, or TWO waits for its commit; THREE and FOUR are staged."""
        self.do("setup")
        self.lock()
        for date in DATES[:4]:
            self.do("stage", **self.stage(date))
        live = [ONE, TWO, THREE] if verb == "clean" else [ONE]
        for date in live:
            self.do("publish", DATE=date)
            self.do("commit", DATE=date)
        if verb in PREPARED:
            self.do(PREPARED[verb], DATE=TWO)

    @property
    def current(self):
        """The release that visitors get. Failed where it is none, or not whole."""
        link = self.site / "current"
        date = link.readlink().name if link.is_symlink() else "-"
        page = self.site / "current/page"
        if not page.exists() or page.read_text() != date:
            raise Failed(f"current is {date}, which is no whole release")
        return date


def kill_everywhere(verb, script=SCRIPT):
    """How often a verb was killed, each time one step later, until it got through. Failed, with
    the step, where the next run did not find its way.
    """
    bases = ("", ONE) if verb == "stage" else ("",)
    return sum(killed_at_each_step(verb, base, script) for base in bases)


def killed_at_each_step(verb, base, script):
    with tempfile.TemporaryDirectory(prefix="stepping") as folder:
        home = Home(Path(folder), script)
        home.prepare(verb)
        values = home.stage(FIVE, base) if verb == "stage" else VALUES[verb]
        token, saved = home.token, home.folder / "saved"
        shutil.copytree(home.home, saved, symlinks=True)
        for step in itertools.count(1):
            home.token = token
            shutil.rmtree(home.home)
            shutil.copytree(saved, home.home, symlinks=True)
            code, _, stderr = home.ask(verb, kill_at=step, LEASE=DUE, **values)
            if code not in (0, -signal.SIGKILL):
                raise Failed(f"{verb} killed at step {step} ended with {code}: {stderr}")
            try:
                next_run(home, verb, values)
            except Failed as error:
                raise Failed(f"{verb} killed at step {step}: {error}") from error
            if code == 0:
                return step - 1


def next_run(home, verb, values):
    """What a run finds, and that it gets through. Failed if it does not."""
    home.current  # noqa: B018
    home.lock(TAKE=home.do("preflight").get("lock_token"))
    found = home.do("preflight")
    if found.get("pending"):
        raise Failed(f"{found.get('pending')} is still pending once the lock is taken")
    current, line = home.current, home.do("list").get("line").split()
    if line[-1:] != [current]:
        raise Failed(f"current is {current}, but the line of those that were live is {line}")
    if verb == "stage":
        home.do("stage", **values)
    date = FIVE if verb == "stage" else FOUR
    for following in ("publish", "commit"):
        home.do(following, DATE=date)
    if home.current != date:
        raise Failed(f"the next run published {date}, and current is {home.current}")
    for entry in (home.site / "state/audit.log").read_text().splitlines():
        json.loads(entry)
