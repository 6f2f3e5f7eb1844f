"""Whole-file and whole-folder writes, JSON with a format number, locks, checksums: one way to do
each. A crash, a full disk or Ctrl-C leaves the old content or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segweave.errors import ErrorKind, InputError, SegweaveError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


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
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room("writing a file", target, error) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it replaces `path`, else it is removed.

    What `path` held before is removed only after the new folder is in its place, and comes back
    where that fails. Raises SegweaveError where the disk is full or the folder can't be written.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        replace_folder(temporary, target)
        temporary = None
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room("writing a folder", target, error) from error
        raise
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: str | Path, old: str | Path) -> None:
    """Rename the folder `new` to `old`, in whose place it then is; `old` comes back on failure."""
    target = Path(old)
    if not os.path.lexists(target):
        os.replace(new, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
    os.replace(target, aside / "folder")
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(aside / "folder", target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def locked(path: str | Path, doing: str, *, remedy: str = "wait for it to end") -> Iterator[None]:
    """Hold the lock file `path` (removed afterwards); the system releases it if the process dies.

    Raises SegweaveError where another process holds it, or where the folder can't be written;
    `doing` and `remedy` are for that message.
    """
    from filelock import FileLock, Timeout

    file = Path(path)
    lock = FileLock(file, blocking=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SegweaveError(
            doing,
            file=file.parent,
            expected="no other process that writes there",
            found="one that does",
            remedy=remedy,
        ) from None
    except OSError as error:
        raise _no_room(doing, file.parent, error) from error
    try:
        yield
    finally:
        # Before the release: afterwards another process may hold the file.
        with suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


@contextmanager
def disk_errors(doing: str, path: str | Path) -> Iterator[None]:
    """Turn what the system reports while `path` is written into a SegweaveError."""
    try:
        yield
    except OSError as error:
        raise SegweaveError(
            f"{doing}: {error.strerror or error}",
            file=path,
            remedy="free some space or choose another folder; run the same command to continue",
        ) from error


def write_json(path: str | Path, content: Any, *, indent: int = 2) -> None:
    """Write a JSON file in one piece; NaN and infinite numbers raise ValueError."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(
    path: str | Path,
    doing: str,
    *,
    formats: Container[int] | None = None,
    expected: str = "a JSON object",
    remedy: str | None = None,
    kind: ErrorKind | None = None,
) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        doing: what it is read for, for error messages.
        formats: the numbers that its field `format` may have; None for files without one.
        expected: what the file should be, for error messages.
        remedy: what to do where the file is missing or damaged, for error messages.
        kind: the kind of fault that a missing or damaged file is, for `check`.

    Raises InputError where the file is missing, is not a JSON object, or has another format.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            doing, file=file, expected=expected, found=found, remedy=remedy, kind=kind
        ) from error
    if not isinstance(content, dict):
        found = f"a JSON {type(content).__name__}"
        raise InputError(doing, file=file, expected=expected, found=found, remedy=remedy, kind=kind)
    if formats is not None:
        _check_format(content.get("format"), formats, file, doing, expected)
    return content


def _check_format(
    number: Any, formats: Container[int], file: Path, doing: str, expected: str
) -> None:
    if isinstance(number, int) and not isinstance(number, bool) and number in formats:
        return
    raise InputError(
        doing,
        file=file,
        expected=f"{expected} of a format that this version of segweave reads",
        found=f"format {number!r}" if number is not None else "no format number",
        remedy="read it with the version of segweave that wrote it, or a newer one",
    )


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no NaN."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False)


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes; of a folder (a DICOM series), of its files' digests."""
    file = Path(path)
    if file.is_dir():
        parts = sorted(part for part in file.iterdir() if part.is_file())
        return sha256_of_text("".join(map(sha256_of, parts)))
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Hexadecimal sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _no_room(doing: str, path: Path, error: OSError) -> SegweaveError:
    return SegweaveError(
        f"{doing}: {error.strerror}",
        file=path,
        remedy="free some space or choose another folder; what was there before is untouched",
    )
