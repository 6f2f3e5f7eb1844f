"""Anyone's cases listed in a CSV table: image, mask, case, group and part."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.splits import PARTS, cases_of
from segweave.datasets._groups import half_filled, own_group_warning
from segweave.datasets._volumes import colours, labelled, read_volume, splits_by
from segweave.datasets.base import Item, LeftOut, Plan, few, not_there
from segweave.errors import ErrorKind, InputError, SegweaveError, UsageError
from segweave.formats import Geometry, case_name, read_case, read_label_case
from segweave.formats.label_ids import scaled_ids
from segweave.registry import DatasetCard

CARD = DatasetCard(
    name="table",
    title="cases listed in a CSV table",
    entry="plan",
    stack="space",
    kind="exclusive",
    source="table",
)

_DOING = "preparing the cases of a table"
_COLUMNS = ("image", "mask", "case", "group", "part")
_MOST = 31


def plan(
    source: Path,
    *,
    classes: Sequence[str] | None = None,
    kind: Literal["auto", "binary", "exclusive"] = "auto",
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    geometry: Geometry = "check",
) -> Plan:
    """Read a CSV file (or the only one in a folder) with the columns `image` and `mask` (paths,
    from the table's own folder; a DICOM series is its folder) and, if wanted, `case` (its id, else
    the image's name), `group` (the patient, else the case) and `part` (train, valid, test).

    Without a mask the image's own file holds the label (h5, npz). `classes` names the foreground of
    a binary target or all classes from id 0 on; without it all masks are read for their ids.
    Without parts groups are dealt out by `fractions` and `seed`. `geometry` decides where a NIfTI
    header contradicts itself (check, pixdim, affine). Raises InputError for a table without these
    columns and for classes that can't be told.
    """
    file = _file(source)
    rows = _rows(file)
    errors: list[SegweaveError] = []
    left_out: list[LeftOut] = []
    files: dict[str, tuple[Path, Path | None]] = {}
    told: dict[str, str] = {}
    parts: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        problem = _take(row, file.parent, files, told, parts, left_out)
        if problem:
            errors.append(
                InputError(
                    _DOING,
                    file=file,
                    expected=problem[0],
                    found=f"line {number}: {problem[1]}",
                    kind=problem[2],
                )
            )
    if not files and not errors:
        raise InputError(
            _DOING, file=file, expected="at least one case", found="none", kind="missing"
        )
    errors += half_filled(told, _DOING, file)
    groups = {id: group or id for id, group in told.items()}
    home: dict[str, str] = {}
    for id, part in parts.items():
        if home.setdefault(groups[id], part) != part:
            errors.append(
                InputError(
                    _DOING,
                    file=file,
                    expected="every group in one part",
                    found=f"{groups[id]!r} in {home[groups[id]]} and in {part}",
                    remedy="give all cases of a patient the same part",
                    kind="split",
                )
            )
    if parts and len(parts) < len(files):
        lost = [id for id in files if id not in parts]
        errors.append(
            InputError(
                _DOING, file=file, expected="a part in every row", found=few(lost), kind="layout"
            )
        )
    target, scaled = _target(kind, classes, files, geometry, file, errors)
    items = [
        Item(
            id,
            tuple(_listed(image) + ([mask] if mask else [])),
            partial(_read, image, mask, id, groups[id], geometry, scaled),
            group=groups[id],
        )
        for id, (image, mask) in files.items()
    ]
    grouped = any(told.values())
    given = {part: sorted({groups[id] for id in parts if parts[id] == part}) for part in PARTS}
    return Plan(
        layout="table",
        target=target,
        items=items,
        splits=(lambda here: {"given": cases_of(given, here)})
        if parts
        else splits_by(fractions, seed),
        left_out=left_out,
        warnings=own_group_warning(grouped),
        grouped=grouped,
        options=f"geometry {geometry}",
        provenance={"split": "given" if parts else f"seed {seed}, by group"},
        errors=errors,
    )


def _file(source: Path) -> Path:
    if source.is_file():
        return source
    tables = sorted(source.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(
            _DOING,
            file=source,
            expected="a CSV file, or a folder with one",
            found=", ".join(path.name for path in tables[:4]) or "none",
            remedy="give the file itself",
            kind="layout",
        )
    return tables[0]


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            start = stream.read(4096)
            stream.seek(0)
            semicolons = start.count(";") > start.count(",")
            raw = list(csv.DictReader(stream, delimiter=";" if semicolons else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            "reading a table of cases", file=file, found=str(error)[:150], kind="layout"
        ) from error
    held = {(name or "").strip().lower(): name for name in (raw[0] if raw else {})}
    if "image" not in held:
        raise InputError(
            "reading a table of cases",
            file=file,
            expected="the columns image and mask and, if wanted, case, group and part",
            found=", ".join(map(str, held.values())) or "no rows",
            kind="layout",
        )
    own = [name for name in _COLUMNS if name in held]
    return [{name: (row.get(held[name]) or "").strip() for name in own} for row in raw]


def _take(
    row: dict[str, str],
    folder: Path,
    files: dict[str, tuple[Path, Path | None]],
    groups: dict[str, str],
    parts: dict[str, str],
    left_out: list[LeftOut],
) -> tuple[str, str, ErrorKind] | None:
    """Enter one row; returns (expected, found, kind of fault) where it is wrong."""
    if not row["image"]:
        return "a path as image", "none", "layout"
    image = folder / row["image"]
    mask = folder / row["mask"] if row.get("mask") else None
    id = row.get("case") or case_name(image)
    if id in files:
        return "an id for each case", f"a second {id!r}", "same-id"
    part = row.get("part", "").lower()
    if part and part not in PARTS:
        return "train, valid or test as part", repr(part), "layout"
    lost = [path for path in (image, mask) if path is not None and not path.exists()]
    if lost:
        there = [path for path in (image, mask) if path is not None and path not in lost]
        left_out += [
            not_there(f"{id}: {path} is not there, the case is left out", path, *there)
            for path in lost
        ]
        return None
    files[id] = (image, mask)
    groups[id] = row.get("group", "")
    if part:
        parts[id] = part
    return None


def _listed(image: Path) -> list[Path]:
    from segweave.formats.dicom import series_files

    return series_files(image) if image.is_dir() else [image]


def _target(
    kind: str,
    classes: Sequence[str] | None,
    files: dict[str, tuple[Path, Path | None]],
    geometry: Geometry,
    table: Path,
    errors: list[SegweaveError],
) -> tuple[TargetSpec, bool]:
    """The classes, and whether 255 in a picture stands for the one of them."""
    if kind not in ("auto", "binary", "exclusive"):
        raise UsageError(_DOING, expected="kind auto, binary or exclusive", found=repr(kind))
    if classes and (kind == "binary" or (kind == "auto" and len(classes) <= 2)):
        names = tuple(classes) if len(classes) > 1 else ("background", *classes)
        return TargetSpec(kind="binary", names=names, colours=colours(len(names))), True
    if classes:
        target = TargetSpec(kind="exclusive", names=tuple(classes), colours=colours(len(classes)))
        return target, False
    scaled, held = scaled_ids(
        {mask or image: _ids(image, mask, geometry) for image, mask in files.values()}
    )
    ids = {id for several in held.values() for id in several}
    most = 1 if scaled else _MOST
    odd = sorted(id for id in ids if id > most)
    highest = max(ids - set(odd), default=0)
    if odd:
        errors.append(
            InputError(
                _DOING,
                file=table,
                expected="0 and 255 alone, as in most masks"
                if scaled
                else f"class ids up to {_MOST}",
                found=f"ids up to {odd[-1]}",
                remedy="name the classes (classes), from id 0 on",
                kind="labels",
            )
        )
    if kind == "binary" or (kind == "auto" and highest <= 1):
        names = ("background", "foreground")
        return TargetSpec(kind="binary", names=names, colours=colours(2)), scaled
    names = ("background", *(f"class {i}" for i in range(1, highest + 1)))
    target = TargetSpec(kind="exclusive", names=names, colours=colours(len(names)))
    return target, scaled and target.white_is_one


def _ids(image: Path, mask: Path | None, geometry: Geometry) -> list[int]:
    """The ids in one mask; damaged files are for the reader to report."""
    try:
        if mask is not None:
            label = read_label_case(mask, geometry=geometry, scaled=False).label
        else:
            label = read_case(image, geometry=geometry).label
    except SegweaveError:
        return []
    return [] if label is None else [int(i) for i in np.flatnonzero(np.bincount(label.ravel()))]


def _read(
    image: Path, mask: Path | None, id: str, group: str, geometry: Geometry, scaled: bool
) -> Case:
    case = read_volume([image], mask, id=id, group=group, geometry=geometry, scaled=scaled)
    labelled(case, image)
    return case
