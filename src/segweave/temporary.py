"""Temporary files and folders beside what they will replace. Each is held by a lock of the system
while it is written, so that what a killed process left is known from what another one is writing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: nothing is held there, and nothing is swept
    fcntl = None  # type: ignore[assignment]

PREFIX = ".writing-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h

_swept: set[str] = set()


@contextmanager
def temporary_file(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the path of a new file in `folder`; it is removed at the end, if it is still there."""
    _sweep(folder)
    while True:
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=suffix, dir=folder)
        if _hold(handle, name):
            break
        os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder in `folder`; it is removed at the end, if it is still there."""
    _sweep(folder)
    while True:
        name = tempfile.mkdtemp(prefix=PREFIX, dir=folder)
        handle = _open_folder(name)
        if handle is None or _hold(handle, name, is_folder=True):
            break
        os.close(handle)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, so that neither is missing at any time. Returns False where
    the system or the file system can't.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    names = (os.fsencode(one), os.fsencode(other))
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder; once per process, because listing a large
    folder before each file of it would take long.
    """
    key = os.path.abspath(folder)
    if fcntl is None or key in _swept:
        return
    _swept.add(key)
    with suppress(OSError):
        for entry in os.scandir(key):
            if entry.name.startswith(PREFIX):
                _remove_abandoned(entry)


def _remove_abandoned(entry: os.DirEntry[str]) -> None:
    is_folder = entry.is_dir(follow_symlinks=False)
    if not (is_folder or entry.is_file(follow_symlinks=False)):
        return
    with suppress(OSError):
        access = os.O_RDONLY if is_folder else os.O_RDWR
        handle = os.open(entry.path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not _lock(handle, is_folder=is_folder):
                return
            if is_folder:
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
        finally:
            os.close(handle)


def _open_folder(name: str) -> int | None:
    return None if fcntl is None else os.open(name, os.O_RDONLY)


def _hold(handle: int, name: str, *, is_folder: bool = False) -> bool:
    """Lock a new file or folder; False where another process took it for abandoned meanwhile."""
    if fcntl is None:
        return True
    try:
        _lock(handle, is_folder=is_folder)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # no locks on this file system: nobody else can take it for abandoned either
    there: Any = None
    with suppress(OSError):
        there = os.stat(name)
    return there is not None and os.path.samestat(there, os.fstat(handle))


def _lock(handle: int, *, is_folder: bool) -> bool:
    """Lock an open file or folder until it is closed; False where the system has no such locks.
    Raises OSError where another one holds it.
    """
    if is_folder:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    # The lock of the open file, which closing another handle does not release. HDF5 takes the
    # other kind (flock) of the files that it writes.
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:
        return False
    fcntl.fcntl(handle, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return True
