"""Files that are whole or not there, whatever happens meanwhile."""

import os
from contextlib import contextmanager


@contextmanager
def replacing(path):
    """A scratch Path for the block to write, which is on the disk before it becomes `path`."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
