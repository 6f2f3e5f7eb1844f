"""What a writer of a store holds against other processes and full disks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segweave.errors import SegweaveError


def locked(path: Path, store: Path) -> int:
    """Hold a lock on `path` until the returned descriptor is closed (by the system, if killed).
    Raises SegweaveError where another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl
    except ImportError:  # not on this system: two writers at once are the user's own risk
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SegweaveError(
            f"writing the store {store}",
            expected="no other process writing it",
            found="one that is",
            remedy="wait for it to end",
        ) from error
    return descriptor


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says while the store `path` is written into a SegweaveError."""
    try:
        yield
    except OSError as error:
        raise SegweaveError(
            f"writing the store {path}: {error.strerror or error}",
            remedy="free some space or choose another folder; run the same command to continue",
        ) from error
