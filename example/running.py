"""Says which release the processes of `celery COMMAND` run: `python running.py beat`.

For those that can't be asked. Their unit resolves the release's folder before it starts them, so
their working folder is the one that they have imported from.
"""

import json
import sys
from pathlib import Path


def processes(command: str):
    """{"pid", "release"} of each `celery … COMMAND` that was started from a release beside ours."""
    releases = Path.cwd().resolve().parent
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            folder = (process / "cwd").resolve()
        except OSError:
            continue  # it has ended, or is somebody else's
        celery = any(word.endswith(b"/celery") for word in words)
        if celery and command.encode() in words and folder.parent == releases:
            yield {"pid": int(process.name), "release": folder.name}


if __name__ == "__main__":
    print(json.dumps(list(processes(sys.argv[1]))))
