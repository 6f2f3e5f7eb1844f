"""The store: what `prepare` writes and everything else reads, one lossless, memory-mapped record
per case.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from segweave.data.case import Case
from segweave.data.records import (
    FORMAT,
    Entry,
    damaged,
    entry_from_json,
    folder_name,
    read_record,
    read_store_json,
    verify_arrays,
    write_record,
)
from segweave.data.specs import TargetSpec
from segweave.data.splits import Splits, check_splits, copies_across
from segweave.data.validate_case import check_case, classes_held
from segweave.errors import InputError, UsageError, nearest
from segweave.storage import (
    atomic_folder,
    canonical_json,
    disk_errors,
    locked,
    replace_folder,
    sha256_of,
    sha256_of_text,
    write_json,
)

CONVERTER = "segweave-store 2"


class CaseStore(Protocol):
    """The interface that the rest of the project reads cases through, whatever holds them."""

    name: str
    target: TargetSpec
    splits: dict[str, dict[str, list[str]]]
    checksum: str
    grouped: bool

    @property
    def ids(self) -> list[str]:
        """The cases, in the order in which they were written."""

    @property
    def groups(self) -> dict[str, str]:
        """Case id → group."""

    def entry(self, id: str) -> Entry:
        """Size, slices and checksum of a case."""

    def case(self, id: str) -> Case:
        """One case; its slices are read when they are touched."""

    def verify(self, ids: Iterable[str] | None = None) -> Iterator[str]:
        """Each of these cases once its bytes were found whole; raises InputError otherwise."""

    def cache_folder(self, id: str) -> Path:
        """The folder for disposable copies of a case."""

    def image_checksums(self, ids: Iterable[str] | None = None) -> dict[str, str]:
        """Case id → sha256 of the image, for these cases (all, if None)."""


class Store:
    """A finished store, read only: any number of processes may read one at the same time.

    Attributes:
        path: its folder.
        name: the name of the data set.
        target: what the classes are.
        splits: name of a split → part → case ids.
        checksum: the digest of all that is trained and scored on: name, target, cases and splits.
        converter: what wrote it, with its version.
        provenance: where the data set comes from, and its terms.
        grouped: False where it is not known which cases are of one patient, so that each case is a
            group. Not part of the checksum.
        warnings: what `prepare` reported. Not part of the checksum.

    Raises InputError where there is no store, where its manifest or a record is damaged, or where a
    newer segweave wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = read_store_json(self.path / "manifest.json", f"opening the store {self.path}")
        try:
            self.name: str = manifest["name"]
            self.target = TargetSpec.model_validate(manifest["target"])
            self.checksum: str = manifest["checksum"]
            self.splits: dict[str, dict[str, list[str]]] = manifest["splits"]
            self.converter: str = manifest["converter"]
            self.provenance: dict[str, Any] = manifest["provenance"]
            self.grouped = bool(manifest.get("grouped", True))
            self.warnings: list[str] = [str(line) for line in manifest.get("warnings", [])]
            self._records: dict[str, str] = {c["id"]: c["sha256"] for c in manifest["cases"]}
            self._entries = {c["id"]: entry_from_json(c) for c in manifest["cases"]}
            expected = _checksum(self.name, self.target, self._entries, self.splits)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self.path / "manifest.json", f"{error}") from error
        if expected != self.checksum:
            raise damaged(self.path / "manifest.json", "its checksum does not fit what it lists")

    @property
    def ids(self) -> list[str]:
        """The cases, in the order in which they were written."""
        return list(self._entries)

    @property
    def groups(self) -> dict[str, str]:
        """Case id → group (patient, video)."""
        return {entry.id: entry.group for entry in self._entries.values()}

    def entry(self, id: str) -> Entry:
        """Size, slices and checksum of a case (manifest); an unknown id raises UsageError."""
        if id not in self._entries:
            raise UsageError(
                f"reading from the store {self.path}",
                found=f"no case {id!r}",
                remedy=nearest(id, self._entries),
            )
        return self._entries[id]

    def split(self, name: str, part: str) -> list[str]:
        """The cases of one part of a split; a wrong name raises UsageError with the nearest."""
        doing = f"choosing cases of the store {self.path}"
        if name not in self.splits:
            raise UsageError(doing, found=f"split {name!r}", remedy=nearest(name, self.splits))
        if part not in self.splits[name]:
            raise UsageError(doing, found=f"part {part!r}", remedy=nearest(part, self.splits[name]))
        return list(self.splits[name][part])

    def case(self, id: str) -> Case:
        """One case whose arrays are mapped from disk, read only: touching a slice reads no other.

        Raises UsageError for an unknown id, InputError where the record is damaged.
        """
        entry = self.entry(id)
        folder = self.path / "records" / entry.record
        record = read_store_json(
            folder / "record.json", f"reading the case {id!r}", self._records[id]
        )
        return read_record(record, folder)

    def verify(self, ids: Iterable[str] | None = None) -> Iterator[str]:
        """Read every byte of these cases (all, if None) against its checksum; yields each id that
        is whole, raises InputError at the first that is not.
        """
        for entry in map(self.entry, self.ids if ids is None else ids):
            folder = self.path / "records" / entry.record
            doing = f"verifying the case {entry.id!r}"
            record = read_store_json(folder / "record.json", doing, self._records[entry.id])
            verify_arrays(record, folder)
            yield entry.id

    def cache_folder(self, id: str) -> Path:
        """The folder for disposable copies of a case: NAME.cache beside the store."""
        return self.path.parent / f"{self.path.name}.cache"

    def image_checksums(self, ids: Iterable[str] | None = None) -> dict[str, str]:
        """Case id → sha256 of the image's file, for these cases (all, if None); reads each record.

        Raises UsageError for an unknown id, InputError where a record is damaged.
        """
        found = {}
        for entry in map(self.entry, self.ids if ids is None else ids):
            file = self.path / "records" / entry.record / "record.json"
            doing = f"reading the case {entry.id!r}"
            record = read_store_json(file, doing, self._records[entry.id])
            found[entry.id] = str(record["arrays"]["image"]["sha256"])
        return found

    def describe(self) -> dict[str, Any]:
        """Name, counts, sizes, classes, splits and checksum, for people to read."""
        entries = list(self._entries.values())
        sizes = [entry.size for entry in entries]
        return {
            "name": self.name,
            "cases": len(entries),
            "groups": len({entry.group for entry in entries}),
            "grouped": self.grouped,
            "slices": sum(entry.slices for entry in entries),
            "channels": sorted({entry.channels for entry in entries}),
            "smallest size": (min(s[0] for s in sizes), min(s[1] for s in sizes)),
            "largest size": (max(s[0] for s in sizes), max(s[1] for s in sizes)),
            "kind": self.target.kind,
            "classes": list(self.target.names),
            "splits": {
                name: {part: len(ids) for part, ids in parts.items()}
                for name, parts in self.splits.items()
            },
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            "checksum": self.checksum,
        }


class StoreWriter:
    """Writes a store; used as a context manager: `add` every case, then `finish`.

    Records are written beside `path`, under a hidden name, and the whole is renamed when it is
    finished, so that `path` never holds half a store. After an interruption a new writer finds the
    finished records: where `has` is true (their bytes are verified), `add` is not needed.

    Args:
        path: the folder of the store.
        name: the name of the data set.
        target: what the classes are.
        converter: what reads the data set, with its version: another one reads all cases again.
        overwrite: whether a store that is there may be replaced.

    Attributes:
        resumed: the ids that an interrupted conversion had finished.

    Raises UsageError where `path` exists (unless `overwrite`) and where another process is writing
    the same store, SegweaveError where the disk is full.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from segweave import Case
        >>> from segweave.data.specs import TargetSpec
        >>> from segweave.data.store import StoreWriter
        >>> image, label = np.zeros((1, 1, 8, 8), np.uint8), np.ones((1, 8, 8), np.uint8)
        >>> folder = tempfile.mkdtemp() + "/store"
        >>> with StoreWriter(folder, "mine", TargetSpec(names=("background", "polyp"))) as writer:
        ...     writer.add(Case("image-1", "patient-1", image, label))
        ...     store = writer.finish({"default": {"train": ["image-1"]}})
        >>> store.ids
        ['image-1']
    """

    def __init__(
        self,
        path: str | Path,
        name: str,
        target: TargetSpec,
        *,
        converter: str = "",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        self.name = name
        self.target = target
        self.converter = "; ".join(part for part in (converter, CONVERTER) if part)
        self.overwrite = overwrite
        self.resumed: list[str] = []
        self._cases: dict[str, dict[str, Any]] = {}
        self._images: dict[str, str] = {}
        self._held: set[int] = set()
        self._work = self.path.parent / f".{self.path.name}.writing"
        self._lock: AbstractContextManager[None] | None = None
        self._doing = f"writing the store {self.path}"

    def __enter__(self) -> StoreWriter:
        if os.path.lexists(self.path) and not self.overwrite:
            raise UsageError(
                f"writing the store {self.path}",
                expected="a folder that does not exist yet",
                found="it exists",
                remedy="choose another folder, or overwrite it (--overwrite)",
            )
        if os.path.lexists(self.path) and not (self.path / "manifest.json").is_file():
            raise UsageError(
                f"overwriting the store {self.path}",
                expected="a store",
                found="something else, which is left alone",
                remedy="choose another folder",
            )
        with disk_errors(self._doing, self.path):
            (self._work / "records").mkdir(parents=True, exist_ok=True)
            # Beside the folder, which is renamed at the end.
            lock = locked(self._work.with_suffix(".lock"), self._doing)
            lock.__enter__()
            self._lock = lock
            for leftover in (self._work / "records").glob(".writing-*"):
                shutil.rmtree(leftover)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            # Finished records are kept for the next attempt; an empty folder is useless.
            records = self._work / "records"
            if records.is_dir() and not any(records.iterdir()):
                shutil.rmtree(self._work, ignore_errors=True)
            self._lock.__exit__(None, None, None)
            self._lock = None

    @property
    def counts(self) -> dict[str, int]:
        """Groups, cases and slices so far."""
        return {
            "groups": len({case["group"] for case in self._cases.values()}),
            "cases": len(self._cases),
            "slices": sum(case["slices"] for case in self._cases.values()),
        }

    @property
    def groups(self) -> dict[str, str]:
        """Case id → group, of the cases so far."""
        return {id: case["group"] for id, case in self._cases.items()}

    @property
    def absent(self) -> list[str]:
        """The foreground classes that no label holds so far."""
        foreground = self.target.foreground
        return [name for number, name in foreground.items() if number not in self._held]

    def copies(self, splits: Splits) -> list[str]:
        """Pairs of cases whose images are the same, pixel for pixel, and that are in different
        parts of a split, as sentences.
        """
        return copies_across(splits, self._images)

    def has(self, id: str, fingerprint: str) -> bool:
        """Whether an interrupted conversion left the finished record of `id`, made from the same
        source (`fingerprint`); its arrays are read against their checksums first.
        """
        folder = self._work / "records" / folder_name(id)
        if not folder.is_dir():
            return False
        try:
            record = read_store_json(folder / "record.json", f"continuing with the case {id!r}")
            if record["fingerprint"] != fingerprint or record["converter"] != self.converter:
                return False
            verify_arrays(record, folder)
            case = read_record(record, folder)
            check_case(case, self.target, labelled=False)
        except (InputError, KeyError, TypeError):
            return False
        self._list(record, folder, case)
        self.resumed.append(id)
        return True

    def add(self, case: Case, fingerprint: str = "", *, labelled: bool = True) -> None:
        """Write one case. Raises InputError where it does not fit the target or its id is taken."""
        check_case(case, self.target, labelled=labelled)
        if case.id in self._cases:
            raise InputError(
                f"writing the store {self.path}",
                file=case.provenance.file if case.provenance else None,
                expected="an id for each case",
                found=f"two cases {case.id!r}",
            )
        folder = self._work / "records" / folder_name(case.id)
        with disk_errors(self._doing, self.path), atomic_folder(folder) as temporary:
            record = write_record(case, temporary, fingerprint, self.converter)
        self._list(record, folder, case)

    def finish(
        self,
        splits: Splits | None = None,
        provenance: Mapping[str, Any] | None = None,
        *,
        grouped: bool = True,
        warnings: Sequence[str] = (),
    ) -> Store:
        """Write the manifest, rename the store to its path and open it.

        Args:
            splits: name of a split → part → case ids.
            provenance: where the data set comes from, and its terms.
            grouped: False where groups are not known and each case is one; tables of scores then
                state it.
            warnings: sentences for whoever opens the store; those of `copies` are added.

        Raises InputError where there is no case, UsageError where a split names an unknown case or
        has a group in two of its parts.
        """
        if not self._cases:
            raise InputError(
                f"writing the store {self.path}", expected="at least one case", found="none"
            )
        chosen = {
            name: {part: list(ids) for part, ids in parts.items()}
            for name, parts in (splits or {}).items()
        }
        check_splits(chosen, self.groups)
        cases = list(self._cases.values())
        entries = {case["id"]: entry_from_json(case) for case in cases}
        manifest = {
            "format": FORMAT,
            "name": self.name,
            "converter": self.converter,
            "target": self.target.model_dump(mode="json"),
            "checksum": _checksum(self.name, self.target, entries, chosen),
            "provenance": dict(provenance or {}),
            "grouped": grouped,
            "warnings": [*warnings, *self.copies(chosen)],
            "splits": chosen,
            "cases": cases,
        }
        with disk_errors(self._doing, self.path):
            # Records of an earlier attempt that this one did not ask for do not belong to it.
            wanted = {case["record"] for case in cases}
            for folder in (self._work / "records").iterdir():
                if folder.name not in wanted:
                    shutil.rmtree(folder)
            write_json(self._work / "manifest.json", manifest, indent=1)
            replace_folder(self._work, self.path)
        return Store(self.path)

    def _list(self, record: dict[str, Any], folder: Path, case: Case) -> None:
        self._images[case.id] = record["arrays"]["image"]["sha256"]
        self._held |= classes_held(case, self.target)
        shape = record["arrays"]["image"]["shape"]
        self._cases[record["id"]] = {
            "id": record["id"],
            "group": record["group"],
            "slices": shape[0],
            "channels": shape[1],
            "size": shape[2:],
            "labelled": "label" in record["arrays"],
            "gaps": record["gaps"],
            "record": folder.name,
            "content": record["content"],
            "sha256": sha256_of(folder / "record.json"),
        }


def _checksum(name: str, target: TargetSpec, entries: Mapping[str, Entry], splits: Splits) -> str:
    content = {
        "name": name,
        "target": target.model_dump(mode="json"),
        "cases": [asdict(entries[id]) for id in sorted(entries)],
        "splits": splits,
    }
    return sha256_of_text(canonical_json(content))
