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
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segweave.errors import InputError, SegweaveError, UsageError
from segweave.temporary import PREFIX, exchange, temporary_file, temporary_folder

if TYPE_CHECKING:
    import sqlite3

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_CAN_NOT_WRITE = (errno.ENOSPC, errno.EDQUOT, *_NOT_ALLOWED)
_LARGEST_JSON = 1 << 28  # bytes: a store of a million cases, and no file that fills the memory


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed and renamed to `path`,
    else removed.

    The temporary name keeps the suffixes of `path`, so that writers that look at them work. Raises
    SegweaveError (exit code 1) where the disk is full or the folder can't be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(target.parent, "".join(target.suffixes)) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, target)
    except OSError as error:
        if error.errno in _CAN_NOT_WRITE:
            raise _not_writable("writing a file", target, error) from error
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it is renamed to `path`, else removed. What
    `path` held before is removed only after the rename, and comes back where that fails.

    Raises SegweaveError where the disk is full or the folder can't be written.
    """
    target = Path(path)
    with scratch_folder(target) as temporary:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        replace_folder(temporary, target)


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, on the same disk; it is removed at the end, unless it was
    renamed. Raises SegweaveError where the disk is full or the folder can't be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.parent) as temporary:
            yield temporary
    except OSError as error:
        if error.errno in _CAN_NOT_WRITE:
            raise _not_writable("writing a folder", target, error) from error
        raise


def replace_folder(new: str | Path, old: str | Path) -> None:
    """Rename the folder `new` to `old`, whose content is removed; on failure it comes back. Where
    the system can, the two are exchanged, so that `old` is never missing.
    """
    source, target = Path(new), Path(old)
    if not os.path.lexists(target):
        os.replace(source, target)
        return
    if exchange(source, target):
        # The old one gets a name that is swept where this process is killed meanwhile.
        with suppress(OSError), temporary_folder(target.parent) as aside:
            os.replace(source, aside / "folder")
        return
    aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
    os.replace(target, aside / "folder")
    try:
        os.replace(source, target)
    except BaseException:
        os.replace(aside / "folder", target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def locked(
    path: str | Path, doing: str, *, remedy: str = "wait for it to end", wait: bool = False
) -> Iterator[None]:
    """Hold the lock file `path`; the system releases it if the process dies.

    Args:
        path: the lock file.
        doing: what is being done, for error messages.
        remedy: what to do where another process holds it.
        wait: whether to wait for another process. The lock file then stays (others may be waiting
            for it); else it is removed.

    Raises UsageError where another process holds it, SegweaveError where the folder can't be
    written.
    """
    from filelock import FileLock, Timeout

    file = Path(path)
    lock = FileLock(file, timeout=-1 if wait else 0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UsageError(
            doing,
            file=file.parent,
            found="another process is writing there",
            remedy=remedy,
        ) from None
    except OSError as error:
        raise _not_writable(doing, file.parent, error) from error
    try:
        yield
    finally:
        # Before the release: afterwards another process may hold the file.
        if not wait:
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
            remedy=f"{_first_step(error)} or choose another folder; "
            "run the same command to continue",
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8, line ends as they are) in one piece."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: str | Path, content: Any, *, indent: int = 2) -> None:
    """Write a JSON file in one piece; NaN and infinite numbers raise ValueError. Names that are not
    valid text (bytes of a file name that are no UTF-8) are written with escapes and come back.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed processes left half written in `folder` and its subfolders. Only for who
    holds the folder's lock: nobody else may be writing there.
    """
    for path in list(Path(folder).rglob(f"{PREFIX}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def read_json(
    path: str | Path,
    doing: str,
    *,
    formats: Collection[int] | None = None,
    expected: str = "a JSON object",
    remedy: str | None = None,
    sha256: str | None = None,
) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        doing: what it is read for, for error messages.
        formats: the numbers that its field `format` may have; None for files without one.
        expected: what the file should be, for error messages.
        remedy: what to do where the file is missing or damaged, for error messages.
        sha256: the checksum that the file must have; None for any.

    Raises InputError where the file is missing, is larger than 256 MiB, has another checksum, is
    not a JSON object, or has another format.
    """
    content = read_json_value(path, doing, expected=expected, remedy=remedy, sha256=sha256)
    if not isinstance(content, dict):
        found = f"a JSON {type(content).__name__}"
        raise _unreadable(doing, Path(path), expected, found, remedy)
    if formats is not None:
        _check_format(content.get("format"), formats, Path(path), doing, expected, remedy)
    return content


def read_json_value(
    path: str | Path,
    doing: str,
    *,
    expected: str = "a JSON file",
    remedy: str | None = None,
    sha256: str | None = None,
) -> Any:
    """What a JSON file holds, of whatever type; arguments and errors as in `read_json`."""
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            # A pipe or a device would be waited for, or never end.
            raise _unreadable(doing, file, expected, "no ordinary file", remedy)
        size = file.stat().st_size
        found = f"{size} bytes, more than are read ({_LARGEST_JSON})"
        if size <= _LARGEST_JSON:
            block = file.read_bytes()
            if sha256 is None or hashlib.sha256(block).hexdigest() == sha256:
                return json.loads(block)
            found = "another content: its checksum has changed"
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(doing, file, expected, found, remedy) from error
    raise _unreadable(doing, file, expected, found, remedy)


def _unreadable(
    doing: str, file: Path, expected: str, found: str, remedy: str | None
) -> InputError:
    return InputError(
        doing, file=file, expected=expected, found=found, remedy=remedy, kind="layout"
    )


def _check_format(
    number: Any,
    formats: Collection[int],
    file: Path,
    doing: str,
    expected: str,
    remedy: str | None,
) -> None:
    known = isinstance(number, int) and not isinstance(number, bool)
    if known and number in formats:
        return
    raise InputError(
        doing,
        file=file,
        expected=f"{expected} of format {' or '.join(map(str, sorted(formats)))}",
        found=f"format {number!r}" if number is not None else "no format number",
        remedy="update segweave: a newer version wrote it"
        if known and number > max(formats)
        else remedy,
    )


def open_table(
    file: Path,
    table: str,
    number: int,
    doing: str,
    *,
    pragmas: Collection[str] = (),
    expected: str,
    remedy: str,
) -> sqlite3.Connection:
    """Open or make an SQLite file with the table of that `create table if not exists` statement.

    Every statement is a transaction that a crash leaves whole. The connection may be used by any
    thread, by one at a time. `number` is that of the format, `pragmas` are set besides. Raises
    InputError where the file is something else or of another format.
    """
    import sqlite3

    try:
        connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        (version,) = connection.execute("pragma user_version").fetchone()
        if version not in (0, number):
            raise sqlite3.DatabaseError(f"format {version}")
        for pragma in ("journal_mode=wal", *pragmas):
            connection.execute(f"pragma {pragma}")
        connection.execute(table)
        connection.execute(f"pragma user_version={number}")
    except sqlite3.Error as error:
        raise InputError(
            doing,
            file=file,
            expected=f"{expected} of format {number}",
            found=str(error),
            remedy=remedy,
        ) from error
    return connection


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
    return sha256_of_bytes(text.encode())


def sha256_of_bytes(*parts: bytes | memoryview) -> str:
    """Hexadecimal sha256 of bytes; several parts count as one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def can_write(folder: str | Path) -> bool:
    """Whether files can be written into a folder, which need not exist yet. It is tried, because
    permissions do not tell: the file system may be read-only.
    """
    there = Path(folder).absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _not_writable(doing: str, path: Path, error: OSError) -> SegweaveError:
    return SegweaveError(
        f"{doing}: {error.strerror}",
        file=path,
        remedy=f"{_first_step(error)} or choose another folder; what was there before is untouched",
    )


def _first_step(error: OSError) -> str:
    return "allow to write there" if error.errno in _NOT_ALLOWED else "free some space"
