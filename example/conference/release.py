"""Which release this process runs: fixed at import, whatever is switched later."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = ROOT.name if re.fullmatch(r"\d{14}", ROOT.name) else "checkout"
STARTED = datetime.now(UTC).isoformat(timespec="seconds")


def facts() -> dict:
    """What this process answers when asked what it runs."""
    return {"release": NAME, "pid": os.getpid(), "started": STARTED}
