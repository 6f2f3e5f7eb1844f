"""The store: what `prepare` writes and everything else reads, one lossless, memory-mapped record
per case, with checksums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from segweave.data.case import Case, Provenance, SourceGrid
from segweave.data.specs import TargetSpec
from segweave.data.splits import Splits
from segweave.errors import InputError, UsageError, nearest
from segweave.storage import canonical_json, read_json, sha256_of, sha256_of_text

FORMAT = 1
ARRAYS = ("image", "label", "instances")
_SPLITS = TypeAdapter(dict[str, dict[str, list[str]]])
# What is raised where JSON from elsewhere holds other types or numbers than `prepare` writes.
_WRONG = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Entry:
    """What the manifest states of one case, without opening its record.

    Attributes:
        id: the case.
        group: its group.
        slices: number of slices.
        channels: number of channels.
        size: (height, width) in pixels.
        labelled: whether it has a label.
        gaps: slice numbers before which the stack is interrupted.
        record: the name of its folder.
        content: sha256 of the arrays and the geometry; its provenance does not enter.
    """

    id: str
    group: str
    slices: int
    channels: int
    size: tuple[int, int]
    labelled: bool
    gaps: tuple[int, ...]
    record: str
    content: str


def entry_from_json(case: Mapping[str, Any]) -> Entry:
    """The Entry of one case in a manifest; raises ValueError, KeyError or TypeError if damaged."""
    return Entry(
        id=str(case["id"]),
        group=str(case["group"]),
        slices=int(case["slices"]),
        channels=int(case["channels"]),
        size=(int(case["size"][0]), int(case["size"][1])),
        labelled=bool(case["labelled"]),
        gaps=tuple(int(gap) for gap in case["gaps"]),
        record=_plain_name(str(case["record"])),
        content=str(case["content"]),
    )


def _plain_name(name: str) -> str:
    # A manifest from elsewhere must not lead out of its folder.
    if Path(name).name != name or name in (".", ".."):
        raise ValueError(f"{name!r} is not the name of a record")
    return name


def is_store(folder: str | Path) -> bool:
    """Whether a folder looks like a store that `prepare` wrote, damaged or not."""
    path = Path(folder)
    return (path / "manifest.json").is_file() and (path / "records").is_dir()


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
        doing = f"opening the store {self.path}"
        if not (self.path / "manifest.json").is_file():
            raise InputError(
                doing,
                file=self.path,
                expected="a store as `segweave prepare` wrote it",
                found="no manifest.json in it" if self.path.is_dir() else "no such folder",
                remedy="check the path, or prepare the data set (segweave prepare --help)",
            )
        manifest = read_store_json(self.path / "manifest.json", doing)
        try:
            self.name: str = manifest["name"]
            self.target = TargetSpec.model_validate(manifest["target"])
            self.checksum: str = manifest["checksum"]
            self.splits = _SPLITS.validate_python(manifest["splits"], strict=True)
            self.converter: str = manifest["converter"]
            self.provenance: dict[str, Any] = dict(manifest["provenance"])
            self.grouped = bool(manifest.get("grouped", True))
            self.warnings: list[str] = [str(line) for line in manifest.get("warnings", [])]
            self._records: dict[str, str] = {c["id"]: c["sha256"] for c in manifest["cases"]}
            self._entries = {c["id"]: entry_from_json(c) for c in manifest["cases"]}
            expected = store_checksum(self.name, self.target, self._entries, self.splits)
        except _WRONG as error:
            raise damaged(self.path / "manifest.json", f"{error}") from error
        listed = {id for parts in self.splits.values() for ids in parts.values() for id in ids}
        if not self._entries or not listed <= self._entries.keys():
            unknown = ", ".join(sorted(listed - self._entries.keys())[:3])
            why = f"its splits name unknown cases: {unknown}" if unknown else "it has no cases"
            raise damaged(self.path / "manifest.json", why)
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


def read_record(record: dict[str, Any], folder: Path) -> Case:
    """The case of a record whose arrays are mapped, read only; raises InputError if damaged."""
    try:
        arrays = {name: _mapped(folder, name, about) for name, about in record["arrays"].items()}
        grid, source = record["source_grid"], record["provenance"]
        return Case(
            id=record["id"],
            group=record["group"],
            image=arrays["image"],
            label=arrays.get("label"),
            instances=arrays.get("instances"),
            stack=record["stack"],
            affine=None if record["affine"] is None else np.asarray(record["affine"], np.float64),
            spacing=None if record["spacing"] is None else tuple(record["spacing"]),
            source_grid=None
            if grid is None
            else SourceGrid(*(tuple(grid[key]) for key in ("axes", "flips", "shape"))),
            gaps=tuple(record["gaps"]),
            provenance=None if source is None else Provenance(**source),
            attributes=record["attributes"],
        )
    except _WRONG as error:
        raise damaged(folder / "record.json", f"{error}") from error


def _mapped(folder: Path, name: str, about: Mapping[str, Any]) -> NDArray[Any]:
    if name not in ARRAYS:
        raise damaged(folder / "record.json", f"unknown array {name!r}")
    path = folder / f"{name}.npy"
    if not path.is_file():
        raise damaged(path, "no ordinary file" if path.exists() else "it is missing")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, f"{error}") from error
    if list(array.shape) != list(about["shape"]) or array.dtype.str != about["dtype"]:
        raise damaged(path, f"{array.dtype.str} {array.shape}, not what its record states")
    return array


def verify_arrays(record: Mapping[str, Any], folder: Path) -> None:
    """Read every byte of a record against its checksums; raises InputError where one differs."""
    try:
        checksums = {name: str(about["sha256"]) for name, about in record["arrays"].items()}
        for name, about in record["arrays"].items():
            _mapped(folder, name, about)
    except _WRONG as error:
        raise damaged(folder / "record.json", f"{error}") from error
    for name, checksum in checksums.items():
        if sha256_of(folder / f"{name}.npy") != checksum:
            raise damaged(folder / f"{name}.npy", "its checksum has changed")


def read_store_json(path: Path, doing: str, sha256: str | None = None) -> dict[str, Any]:
    """The object in a JSON file of a store (of that checksum); raises InputError if it is missing,
    damaged or of a format that this version does not know.
    """
    return read_json(
        path,
        doing,
        formats=range(1, FORMAT + 1),
        expected="a store as `segweave prepare` wrote it",
        remedy="prepare the data set again",
        sha256=sha256,
    )


def damaged(path: Path, why: str) -> InputError:
    """The error to raise for a damaged file of a store."""
    return InputError(
        "reading a store",
        file=path,
        expected="the file as it was written",
        found=why,
        remedy="prepare the data set again",
    )


def store_checksum(
    name: str, target: TargetSpec, entries: Mapping[str, Entry], splits: Splits
) -> str:
    """The checksum of a store: of its name, target, cases (in alphabetical order) and splits."""
    content = {
        "name": name,
        "target": target.model_dump(mode="json"),
        "cases": [asdict(entries[id]) for id in sorted(entries)],
        "splits": splits,
    }
    return sha256_of_text(canonical_json(content))
