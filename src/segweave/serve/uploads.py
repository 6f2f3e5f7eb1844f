"""Takes the files of an upload into a job's folder under names of the server, unpacks a zip, and
looks at what they are. No name that a client gave is ever a path.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from segweave.errors import SegweaveError
from segweave.formats import SUFFIXES, suffix_of
from segweave.formats.dicom_file import is_dicom
from segweave.formats.guard import may_unfold, readable_size
from segweave.serve.limits import Limits, RefusedError

INPUT = "input"
_DOING = "receiving an image"
_BLOCK = 1 << 20
_DICOM = (".dcm", ".dicom", ".ima")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END = struct.Struct("<4s4H2LH")
_LONGEST_ENTRY = 400  # bytes of the directory of a zip per member: names and their fields


def store_upload(parts: Iterable[tuple[str, IO[bytes]]], folder: Path, limits: Limits) -> Path:
    """Write the files of an upload below `folder` and return the image: a file, or the folder of a
    DICOM series.

    Args:
        parts: the name that the client gave and the content of each file. Of the name only a known
            ending is used.
        folder: an existing folder.
        limits: what is allowed.

    Raises RefusedError: 413 where it is too much, 415 for a kind of file that is not read, 422 for
    several images and for a damaged zip.
    """
    home = folder / INPUT
    home.mkdir()
    writer = _Writer(home, limits)
    for name, stream in parts:
        if _is_zip(name, stream):
            _unpack(stream, writer)
        else:
            writer.add(name, _blocks(stream))
    return _image(writer.files, home)


def opened(image: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of an image or of the folder of a DICOM series, one open at a time."""
    for file in [image] if image.is_file() else sorted(image.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            with file.open("rb") as stream:
                yield file.name, stream


class _Writer:
    """Writes files as 0001.nii.gz, 0002.dcm ... while they fit into the limits."""

    def __init__(self, home: Path, limits: Limits) -> None:
        self.limits = limits
        self.files: list[Path] = []
        self._home = home
        self._left = limits.bytes

    def add(self, name: str, blocks: Iterator[bytes]) -> None:
        if len(self.files) >= self.limits.files:
            raise too_many_files(self.limits)
        suffix = suffix_of(name)
        path = self._home / f"{len(self.files) + 1:06d}{suffix}"
        with path.open("xb") as file:
            for block in blocks:
                self._left -= len(block)
                if self._left < 0:
                    raise too_large(self.limits)
                file.write(block)
        if not suffix:
            if not is_dicom(path):
                raise RefusedError(
                    415,
                    _DOING,
                    expected="files that end in " + " ".join(SUFFIXES) + " .zip, or DICOM",
                    found="a file of another kind",
                )
            path = path.rename(path.with_suffix(".dcm"))
        self.files.append(path)


def too_large(limits: Limits) -> RefusedError:
    """The error for more bytes than are allowed."""
    return RefusedError(
        413,
        _DOING,
        expected=f"at most {readable_size(limits.bytes)}, packed and unpacked",
        found="more",
        remedy="crop the image, or send fewer slices",
    )


def too_many_files(limits: Limits) -> RefusedError:
    """The error for more files than are allowed."""
    return RefusedError(413, _DOING, expected=f"at most {limits.files} files", found="more")


def _image(files: Sequence[Path], home: Path) -> Path:
    if not files:
        raise RefusedError(422, _DOING, expected="an image in the field `files`", found="no file")
    if len(files) == 1:
        return files[0]
    others = sum(not (suffix_of(file) in _DICOM or is_dicom(file)) for file in files)
    if others:
        raise RefusedError(
            422,
            _DOING,
            expected="one image per job: one file, or the slices of one DICOM series",
            found=f"{len(files)} files, of which {others} are not DICOM",
            remedy="send each image as a separate job",
        )
    return home


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block


def _is_zip(name: str, stream: IO[bytes]) -> bool:
    """Whether it is a zip by its content; an npz file is one too, which its ending shows."""
    stream.seek(0)
    magic = stream.read(4)
    stream.seek(0)
    return magic in (b"PK\x03\x04", b"PK\x05\x06") and not suffix_of(name)


def _unpack(stream: IO[bytes], writer: _Writer) -> None:
    """Write the files of a zip; sizes are counted, not believed."""
    with _reading_zip():
        _check_directory(stream, writer.limits)
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                name = member.filename.replace("\\", "/").rpartition("/")[2]
                if member.is_dir() or name.startswith(".") or name.upper() == "DICOMDIR":
                    continue
                if member.flag_bits & 1 or member.compress_type not in _PACKED:
                    raise RefusedError(
                        422,
                        _DOING,
                        expected="a zip whose files are stored or deflated, without a password",
                        found="encryption, or another compression",
                    )
                with archive.open(member) as content:
                    writer.add(name, _unfolded(content, member.compress_size, writer.limits))


def _unfolded(content: IO[bytes], packed: int, limits: Limits) -> Iterator[bytes]:
    most, done = may_unfold(packed), 0
    for block in _blocks(content):
        done += len(block)
        if done > most:
            raise RefusedError(
                413,
                _DOING,
                expected=f"files that unfold to at most {limits.ratio} times their size",
                found="one that unfolds to more",
                remedy="the file is damaged or malicious; if it is right, send it unpacked",
            )
        yield block


@contextmanager
def _reading_zip() -> Iterator[None]:
    try:
        yield
    except (SegweaveError, OSError, MemoryError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, struct.error) as e:
        raise RefusedError(
            422,
            _DOING,
            expected="a whole zip file",
            found=f"a damaged one ({type(e).__name__})",
            remedy="pack it again",
        ) from None
    except (NotImplementedError, UnicodeError, OverflowError) as e:
        raise RefusedError(
            422, _DOING, expected="a plain zip file", found=type(e).__name__, remedy="pack it again"
        ) from None


def _check_directory(stream: IO[bytes], limits: Limits) -> None:
    """Refuse a zip with a directory, which is read at once, of more than the most files."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - (1 << 16) - _END.size))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    stream.seek(0)
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("no directory")
    fields = _END.unpack_from(tail, at)
    entries, length = fields[4], fields[5]
    if b"PK\x06\x07" in tail[max(0, at - 20) : at]:
        # A zip of more than 4 GiB or 65535 files; both are above the limits.
        raise too_many_files(limits)
    if entries > limits.files * 2 or length > limits.files * _LONGEST_ENTRY * 2:
        raise too_many_files(limits)
