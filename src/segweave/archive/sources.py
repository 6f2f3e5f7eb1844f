"""Where series come from and where results go: a folder, or an archive by DICOMweb."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from segweave.archive.dicomweb import DicomWeb, Record, text_of
from segweave.archive.errors import library
from segweave.errors import InputError, SegweaveError
from segweave.formats.dicom_file import is_dicom, read_data
from segweave.formats.files import folders_below
from segweave.storage import atomic_write, sha256_of_text

_DOING = "looking for series"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "Modality")
Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Series:
    """A series that a source has.

    Attributes:
        uid, study: its UIDs.
        modality: CT, MR, ..., "" where it is not stated.
        slices: its objects; the frames of a single multi-frame one.
        signature: differs when the series has changed.
        since: when it last changed, seconds since 1970; None where the source does not know.
    """

    uid: str
    study: str
    modality: str
    slices: int
    signature: str
    since: float | None = None


class Source(Protocol):
    """A folder or an archive."""

    @property
    def name(self) -> str:
        """What people call it."""

    def look(self) -> list[Series]:
        """All series that are there now. Raises UnreachableError where it does not answer."""

    def values(self, series: Series, keywords: Sequence[str]) -> Values:
        """Keyword → values of attributes of a series."""

    def fetch(self, series: Series, folder: Path) -> None:
        """Bring the files of a series, and nothing else, into `folder`."""

    def holds(self, series: Series, object: str, name: str) -> bool:
        """Whether it has the result of that SOP instance UID and file name."""

    def store(self, file: Path) -> str:
        """Store a result; storing it twice is as good as once. Returns where it is."""


def usable_uid(text: str) -> bool:
    """Whether it is a UID as DICOM defines it, which is safe as a part of a file name."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


@dataclass
class FolderSource:
    """The DICOM files below a folder; results go into another one.

    Attributes:
        folder: what is looked at, with its subfolders.
        out: where results go; it is not looked at where it is inside.
        unusable: the files of the last look that are DICOM without a usable series UID.
    """

    folder: Path
    out: Path
    unusable: int = 0
    _headers: dict[Path, tuple[tuple[int, int], Any]] = field(default_factory=dict)
    _files: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def look(self) -> list[Series]:
        """The series of the files that are there."""
        if not self.folder.is_dir():
            raise InputError(
                _DOING,
                file=self.folder,
                expected="a folder that is looked at, or an address such as "
                "http://127.0.0.1:8042/dicom-web",
                found="a file" if self.folder.exists() else "nothing there",
            )
        out = self.out.resolve()
        parts: dict[tuple[str, str], list[tuple[Path, tuple[int, int], Any]]] = {}
        seen: dict[Path, tuple[tuple[int, int], Any]] = {}
        self.unusable = 0
        for home, inside in folders_below(self.folder, _DOING).items():
            if home.resolve() == out or out in home.resolve().parents:
                continue
            for file in inside:
                entry = self._entry(file)
                if entry is None:
                    continue
                stamp, data = seen[file] = entry
                if data is None:
                    continue
                uid, study = (str(data.get(name, "")) for name in _SERIES[:2])
                if usable_uid(uid) and usable_uid(study):
                    parts.setdefault((uid, study), []).append((file, stamp, data))
                else:
                    self.unusable += 1
        self._headers = seen
        self._files = {uid: [file for file, _, _ in some] for (uid, _), some in parts.items()}
        return [_series(uid, study, some) for (uid, study), some in parts.items()]

    def _entry(self, file: Path) -> tuple[tuple[int, int], Any] | None:
        """(size, time of change) of a file and its header, which is None for what is not DICOM."""
        try:
            about = file.stat()
            stamp = (about.st_size, max(about.st_mtime_ns, about.st_ctime_ns))
            before = self._headers.get(file)
            if before is not None and before[0] == stamp:
                return before
            if not file.is_file():
                return None
            data = _header(file) if is_dicom(file) else None
        except OSError:
            # It was moved meanwhile.
            return None
        except SegweaveError:
            # Perhaps it is still being written; it is read again when it has changed.
            data = None
        return stamp, data

    def values(self, series: Series, keywords: Sequence[str]) -> Values:
        """Attributes of the first file of a series."""
        pydicom = library(_DOING, "pydicom")
        for file in self._files.get(series.uid, ())[:1]:
            data = read_data(
                pydicom, file, _DOING, stop_before_pixels=True, specific_tags=list(keywords)
            )
            return {keyword: _texts(data.get(keyword)) for keyword in keywords}
        return {}

    def fetch(self, series: Series, folder: Path) -> None:
        """Link the files of a series into `folder`, or copy them where links are not possible."""
        for number, file in enumerate(self._files[series.uid], start=1):
            target = folder / f"{number:06d}.dcm"
            try:
                os.symlink(file.absolute(), target)
            except OSError:
                shutil.copyfile(file, target)

    def holds(self, series: Series, object: str, name: str) -> bool:
        """Whether the result's file is there."""
        return (self.out / name).is_file()

    def store(self, file: Path) -> str:
        """Copy a result into the folder of results in one piece."""
        target = self.out / file.name
        with atomic_write(target) as temporary:
            shutil.copyfile(file, temporary)
        return str(target)


def _header(file: Path) -> Any:
    pydicom = library(_DOING, "pydicom")
    wanted = [*_SERIES, "NumberOfFrames"]
    return read_data(pydicom, file, _DOING, stop_before_pixels=True, specific_tags=wanted)


def _series(uid: str, study: str, parts: Sequence[tuple[Path, tuple[int, int], Any]]) -> Series:
    frames = sum(_frames(_texts(data.get("NumberOfFrames"))) for _, _, data in parts)
    modality = _texts(parts[0][2].get("Modality"))
    signature = sha256_of_text("\n".join(f"{file}\t{stamp}" for file, stamp, _ in sorted(parts)))
    since = max(stamp[1] for _, stamp, _ in parts) / 1e9
    return Series(uid, study, modality[0] if modality else "", frames, signature, since)


def _frames(values: Sequence[str]) -> int:
    return int(values[0]) if values and values[0].isdecimal() and len(values[0]) < 8 else 1


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return [str(one) for one in value] if several else [str(value)]


class WebSource:
    """An archive: series are found, fetched and stored by DICOMweb."""

    def __init__(
        self,
        url: str,
        login: str | None = None,
        *,
        keywords: Sequence[str] = (),
        modality: str | None = None,
    ) -> None:
        """Look at the address.

        Args:
            url: that of a DICOMweb service.
            login: a token, or `user:password`.
            keywords: the attributes that `values` will be asked for.
            modality: the archive is asked for series of this one alone.

        Raises UsageError for another address.
        """
        self._web = DicomWeb(url, login)
        self._keywords = tuple(keywords)
        self._filters = {} if modality is None else {"Modality": modality}
        self._records: dict[str, Record] = {}
        self._headers: dict[str, Record] = {}

    @property
    def name(self) -> str:
        """The address."""
        return self._web.url

    def look(self) -> list[Series]:
        """The series that the archive lists."""
        fields = ["Modality", "NumberOfSeriesRelatedInstances", *self._keywords]
        found: dict[str, Series] = {}
        for record in self._web.series(fields, self._filters):
            uid, study, modality, count = (
                next(iter(text_of(record, name)), "")
                for name in (*_SERIES, "NumberOfSeriesRelatedInstances")
            )
            if not (usable_uid(uid) and usable_uid(study)):
                continue
            self._records[uid] = record
            # Archives need not state it.
            number = int(count) if count.isdecimal() else self._web.count(study, uid)
            found[uid] = Series(uid, study, modality, number, f"{number} objects")
        return list(found.values())

    def values(self, series: Series, keywords: Sequence[str]) -> Values:
        """Attributes from the list of series, what is not there from the header of an object."""
        record = self._records.get(series.uid, {})
        found = {keyword: text_of(record, keyword) for keyword in keywords}
        missing = [keyword for keyword in keywords if not found[keyword]]
        if missing:
            if series.uid not in self._headers:
                self._headers[series.uid] = self._web.header(series.study, series.uid)
            header = self._headers[series.uid]
            found |= {keyword: text_of(header, keyword) for keyword in missing}
        return found

    def fetch(self, series: Series, folder: Path) -> None:
        """Download a series. Raises SegweaveError where not all of it came."""
        count = self._web.fetch(series.study, series.uid, folder)
        if count == 0 or (series.slices and count < series.slices):
            raise SegweaveError(
                "fetching a series",
                expected=f"{series.slices or 'its'} objects",
                found=f"{count} of them",
            )

    def holds(self, series: Series, object: str, name: str) -> bool:
        """Whether the study has the result."""
        return self._web.holds(series.study, object)

    def store(self, file: Path) -> str:
        """Store a result under the study of its images."""
        self._web.store(file)
        return self._web.url
