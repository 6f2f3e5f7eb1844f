"""A record: one case on disk in a store, written once, memory-mapped when read, with checksums."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, Provenance, SourceGrid
from segweave.data.specs import TargetSpec
from segweave.data.splits import Splits
from segweave.errors import InputError
from segweave.storage import (
    canonical_json,
    read_json,
    sha256_of,
    sha256_of_text,
    write_text,
)

FORMAT = 1
_ARRAYS = ("image", "label", "instances")


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
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(folder / "record.json", f"{error}") from error


def _mapped(folder: Path, name: str, about: Mapping[str, Any]) -> NDArray[Any]:
    if name not in _ARRAYS:
        raise damaged(folder / "record.json", f"unknown array {name!r}")
    path = folder / f"{name}.npy"
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, f"{error}") from error
    if list(array.shape) != list(about["shape"]) or array.dtype.str != about["dtype"]:
        raise damaged(path, f"{array.dtype.str} {array.shape}, not what its record states")
    return array


def verify_arrays(record: Mapping[str, Any], folder: Path) -> None:
    """Read every byte of a record against its checksums; raises InputError where one differs."""
    for name, about in record["arrays"].items():
        _mapped(folder, name, about)
        if sha256_of(folder / f"{name}.npy") != about["sha256"]:
            raise damaged(folder / f"{name}.npy", "its checksum has changed")


def write_record(case: Case, folder: Path, fingerprint: str, converter: str) -> dict[str, Any]:
    """Write the arrays and record.json of `case` into `folder`; returns the latter's content."""
    arrays = {
        name: _write_array(folder / f"{name}.npy", getattr(case, name))
        for name in _ARRAYS
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


def folder_name(id: str) -> str:
    """A folder name for any id: special characters are quoted, long names cut and given a hash."""
    quoted = urllib.parse.quote(id, safe=" ()+,=@").replace("~", "%7E")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(quoted) > 120 or quoted.lower() != quoted:
        # Some file systems take two names that differ in case for one.
        quoted = f"{quoted[:100]}-{sha256_of_text(id)[:12]}"
    return quoted


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
