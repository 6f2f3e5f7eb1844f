"""Writes a store: one record per case beside the final folder, which takes its name when all are
there.
"""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.splits import Splits, check_splits, copies_across
from segweave.data.store import (
    ARRAYS,
    FORMAT,
    Store,
    entry_from_json,
    read_record,
    read_store_json,
    store_checksum,
    verify_arrays,
)
from segweave.data.validate_case import check_case, classes_held
from segweave.errors import InputError, UsageError
from segweave.storage import (
    atomic_folder,
    canonical_json,
    disk_errors,
    locked,
    replace_folder,
    sha256_of,
    sha256_of_text,
    write_json,
    write_text,
)

CONVERTER = "segweave-store 2"


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
        >>> from segweave.data.store_writer import StoreWriter
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
            "checksum": store_checksum(self.name, self.target, entries, chosen),
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


def write_record(case: Case, folder: Path, fingerprint: str, converter: str) -> dict[str, Any]:
    """Write the arrays and record.json of `case` into `folder`; returns the latter's content."""
    arrays = {
        name: _write_array(folder / f"{name}.npy", getattr(case, name))
        for name in ARRAYS
        if getattr(case, name) is not None
    }
    record = _record_json(case, arrays, fingerprint, converter)
    write_text(folder / "record.json", canonical_json(record))
    return record


def _write_array(path: Path, array: NDArray[Any]) -> dict[str, Any]:
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": sha256_of(path)}


def _record_json(
    case: Case, arrays: dict[str, Any], fingerprint: str, converter: str
) -> dict[str, Any]:
    geometry = {
        "id": case.id,
        "group": case.group,
        "stack": case.stack,
        "spacing": None if case.spacing is None else [float(s) for s in case.spacing],
        "affine": None if case.affine is None else np.asarray(case.affine).tolist(),
        "source_grid": None if case.source_grid is None else asdict(case.source_grid),
        "gaps": list(case.gaps),
        "arrays": arrays,
    }
    return {
        "format": FORMAT,
        "converter": converter,
        **geometry,
        "content": sha256_of_text(canonical_json(geometry)),
        "orientation": _orientation(case.affine),
        "attributes": case.attributes,
        "provenance": None if case.provenance is None else asdict(case.provenance),
        "fingerprint": fingerprint,
    }


def _orientation(affine: NDArray[np.float64] | None) -> str | None:
    """The direction in which (slice, row, column) grow, as three letters of R L A P S I."""
    if affine is None:
        return None
    import nibabel

    return "".join(str(code) for code in nibabel.aff2axcodes(np.asarray(affine)))


def folder_name(id: str) -> str:
    """A folder name for any id: special characters are quoted, long names cut and given a hash."""
    quoted = urllib.parse.quote(id, safe=" ()+,=@").replace("~", "%7E")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(quoted) > 120 or quoted.lower() != quoted:
        # Some file systems take two names that differ in case for one.
        quoted = f"{quoted[:100]}-{sha256_of_text(id)[:12]}"
    return quoted
