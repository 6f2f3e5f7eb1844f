"""Writes files so that a crash, a full disk or Ctrl-C leaves either the old file or the new one,
never half of one.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segweave.errors import SegweaveError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed and renamed to `path`,
    else removed.

    The temporary name keeps the suffixes of `path`, so that writers that look at them work. Raises
    SegweaveError (exit code 1) where the disk is full or the folder can't be written.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(target.suffixes)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise SegweaveError(
                f"writing a file: {error.strerror}",
                file=target,
                remedy="free some space or choose another folder; what was there before is "
                "untouched",
            ) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
