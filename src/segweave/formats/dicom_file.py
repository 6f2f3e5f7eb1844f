"""Finds DICOM files by their content and reads one, however it was made to take time or memory."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from segweave.errors import InputError
from segweave.formats.guard import Unpacked, readable_size, reading

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PLAIN = b"1.2.840.10008.1.2.1"
_ANY_RATIO, _LARGEST_RATIO = 1 << 26, 20
"""How far a deflated file may unfold: bytes, or times its size. It holds one slice."""
_HEAD = 1 << 16
_MOST_READS, _BYTES_A_READ = 100_000, 512
"""Pieces of a file that are read at most, or one for so many bytes: images have some hundred
elements, for each frame where there are several, and a million of them take minutes."""
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
_FIRST_TAGS = {b"\x02\x00": 0x18, b"\x08\x00": 0x70}
"""Groups with which a file without a preamble begins, and the highest element looked for there."""


def is_dicom(file: Path) -> bool:
    """Whether a file begins as DICOM files do: 128 bytes, then DICM, or (of old scanners and
    archives) at once with its first element.
    """
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _begins_with_element(head)


def _begins_with_element(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM element, and another is behind it."""
    at = 0
    for _ in range(2):
        group, element, kind = head[at : at + 2], head[at + 2 : at + 4], head[at + 4 : at + 6]
        if group not in _FIRST_TAGS or int.from_bytes(element, "little") > _FIRST_TAGS[group]:
            return False
        if kind in _LONG_VRS:
            length, start = int.from_bytes(head[at + 8 : at + 12], "little"), 12
        elif kind.isalpha() and kind.isupper():
            length, start = int.from_bytes(head[at + 6 : at + 8], "little"), 8
        else:
            length, start = int.from_bytes(head[at + 4 : at + 8], "little"), 8
        at += start + length
        if at + 6 > len(head):
            # One element of a plausible length is as much as the first bytes can show.
            return length <= 128 and kind.isalpha() and kind.isupper()
    return True


class _Counted:
    """A file for pydicom: it gives no more than is there, and not for ever."""

    def __init__(self, stream: IO[bytes], doing: str, file: Path) -> None:
        self._stream, self._doing, self._file = stream, doing, file
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close
        self._size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        self._reads, self._most = 0, max(_MOST_READS, self._size // _BYTES_A_READ)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; raises InputError where it is asked too often, or for everything."""
        self._reads += 1
        if self._reads > self._most or size < 0:
            raise InputError(
                self._doing,
                file=self._file,
                expected=f"at most {self._most} elements, none of them the whole file",
                found="more",
                remedy="the file is damaged or malicious; leave it out",
                kind="damaged",
            )
        return self._stream.read(min(size, max(0, self._size - self.tell())))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log and the warnings of pydicom: they quote values of headers, names of patients
    with them. What matters is checked, and reported in words of the library.
    """
    log = logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)


@contextmanager
def reading_dicom(doing: str, file: Path) -> Iterator[None]:
    """As `guard.reading`, without the words of pydicom."""
    with reading(doing, file, quote=False), quiet():
        yield


def read_data(pydicom: Any, file: Path, doing: str, **options: Any) -> Any:
    """The data set of a file, as `pydicom.dcmread(file, **options)` reads it.

    Raises InputError for what is not DICOM, and where reading would take more time or memory than
    an image does: a deflated file that unfolds too far, elements without number, sequences in
    sequences.
    """
    with reading_dicom(doing, file):
        if not is_dicom(file):
            raise InputError(
                doing,
                file=file,
                expected="a DICOM file (DICM after 128 bytes, or an element at its start)",
                found="something else",
                remedy="take it out of the folder, or copy it again",
                kind="damaged",
            )
        try:
            with _opened(file, doing) as stream:
                return pydicom.dcmread(_Counted(stream, doing, file), force=True, **options)
        except RecursionError as error:
            raise InputError(
                doing,
                file=file,
                expected="sequences nested as deep as scanners nest them",
                found="hundreds of levels",
                remedy="the file is damaged or malicious; leave it out",
                kind="damaged",
            ) from error


def _opened(file: Path, doing: str) -> IO[bytes]:
    """The file, one that is deflated as if it were not."""
    with file.open("rb") as plain:
        _, at = _meta_group(head := plain.read(_HEAD))
        if head[at : at + len(_DEFLATED)] != _DEFLATED:
            return file.open("rb")
        content = head + plain.read()
    end, at = _meta_group(content)
    stream = Unpacked(io.BytesIO(content[end:]), form="deflate")
    body = bytearray()
    while piece := stream.read(1 << 20):
        body += piece
        if len(body) > max(_ANY_RATIO, _LARGEST_RATIO * len(content)):
            raise InputError(
                doing,
                file=file,
                expected=f"a deflated file that unfolds to at most {readable_size(_ANY_RATIO)}, or "
                f"{_LARGEST_RATIO} times its size",
                found="one that unfolds to more",
                remedy="the file is damaged or malicious; leave it out",
                kind="damaged",
            )
    # The name of the plain form takes the place of the longer one; zeros fill it up.
    head = content[:at] + _PLAIN.ljust(len(_DEFLATED), b"\0") + content[at + len(_DEFLATED) : end]
    return io.BytesIO(head + bytes(body))


def _meta_group(content: bytes) -> tuple[int, int]:
    """Where the elements of group 2 end, and where among them the name of the file's form is (0
    where it is not there). They are read as pydicom reads them, whatever they say of their length.
    """
    at, form = (132 if content[128:132] == b"DICM" else 0), 0
    while content[at : at + 2] == b"\x02\x00" and at + 8 <= len(content):
        if content[at + 4 : at + 6] in _LONG_VRS:
            length, start = int.from_bytes(content[at + 8 : at + 12], "little"), 12
        else:
            length, start = int.from_bytes(content[at + 6 : at + 8], "little"), 8
        if content[at + 2 : at + 4] == b"\x10\x00":
            form = at + start
        at += start + length
    return at, form
