"""Your own cases, listed in a CSV table: image, mask, case, group and part."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from segweave.data.case import Case, ids_in
from segweave.data.splits import PARTS, cases_of, part_named
from segweave.datasets._groups import TableRow, half_filled, own_group_warning, read_rows
from segweave.datasets._volumes import labelled, read_volume, splits_by
from segweave.datasets.base import Item, LeftOut, Plan, not_there
from segweave.errors import ErrorKind, InputError, SegweaveError
from segweave.formats import Geometry, case_name, read_case, read_label_case
from segweave.formats.csv_table import check_columns
from segweave.formats.files import files_of
from segweave.formats.label_ids import check_kind, target_of_ids, target_of_names, too_many_names
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="table",
    title="cases listed in a CSV table",
    entry="plan",
    stack="space",
    kind="exclusive",
    source="table",
    generic=True,
)

_DOING = "preparing the cases of a table"
_COLUMNS = ("image", "mask", "case", "group", "part")


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

    Without a mask the image's own file holds the label (h5, npz). Without `classes` all masks are
    read for their ids.

    Args:
        source: The CSV file, or the folder that holds it.
        classes: Names of the classes from id 1 on; background may be given before them.
        kind: Foreground and background (binary), or several classes (exclusive); auto is binary
            where no id is above 1.
        fractions: Shares of groups for train, valid and test.
        seed: Decides which groups go where, when they are dealt out by fractions.
        geometry: What decides where a NIfTI header contradicts itself: check (refuse), pixdim,
            affine (the sform) or qform.

    Raises InputError for a table without these columns and for ids that can't be classes.
    """
    file = _file(source)
    rows, unused = _rows(file)
    errors: list[SegweaveError] = []
    left_out: list[LeftOut] = []
    files: dict[str, tuple[Path, Path | None]] = {}
    given_groups: dict[str, str] = {}
    parts: dict[str, str] = {}
    for row in rows:
        problem = _take(row, file.parent, files, given_groups, parts, left_out)
        if problem:
            errors.append(
                InputError(
                    _DOING,
                    file=file,
                    expected=problem[0],
                    found=f"line {row.line}: {problem[1]}",
                    kind=problem[2],
                )
            )
    if not files and not errors:
        raise _none_there(file, [str(fault.file) for one in left_out for fault in one.faults])
    errors += half_filled(given_groups, _DOING, file)
    groups = {id: group or id for id, group in given_groups.items()}
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
    check_kind(kind, _DOING)
    if classes:
        target = target_of_names(classes, kind)
        scaled = target.white_is_one
        if not target.one_class:
            held = {mask or image: _ids(image, mask, geometry) for image, mask in files.values()}
            errors += too_many_names(classes, held, _DOING)
    else:
        held = {mask or image: _ids(image, mask, geometry) for image, mask in files.values()}
        target, scaled, faults = target_of_ids(held, _DOING, kind)
        errors += faults
    items = [
        Item(
            id,
            tuple(files_of(image) + ([mask] if mask else [])),
            partial(_read, image, mask, id, groups[id], geometry, scaled),
            group=groups[id],
        )
        for id, (image, mask) in files.items()
    ]
    grouped = any(given_groups.values())
    given = {part: sorted({groups[id] for id in parts if parts[id] == part}) for part in PARTS}
    return Plan(
        layout="table",
        target=target,
        items=items,
        splits=(lambda here: {"given": cases_of(given, here)})
        if parts
        else splits_by(fractions, seed),
        left_out=left_out,
        warnings=[*unused, *own_group_warning(grouped, "add a column group")],
        grouped=grouped,
        options=f"geometry {geometry}",
        provenance={"split": "given" if parts else f"seed {seed}, by group"},
        errors=errors,
    )


def _none_there(file: Path, lost: list[str]) -> InputError:
    """The error for a table of which no case has its files; `lost` are those that it names."""
    remedy = "write paths from the folder of the table"
    if os.sep == "/" and any("\\" in path for path in lost):
        remedy += ', with "/" between folders: "\\" is a letter of a name here'
    return InputError(
        _DOING,
        file=file,
        expected="at least one case whose files are there",
        found=f"{len(lost)} paths where nothing is: {few(lost, 3)}" if lost else "no rows",
        remedy=remedy if lost else None,
        kind="missing",
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


def _rows(file: Path) -> tuple[list[TableRow], list[str]]:
    """The rows, and warnings."""
    doing = "reading a table of cases"
    rows = read_rows(file, doing, own=True)
    names = list(rows[0]) if rows else []
    unused = check_columns(names, _COLUMNS, doing, file)
    if "image" not in names:
        raise InputError(
            doing,
            file=file,
            expected="the columns image and mask and, if wanted, case, group and part",
            found=", ".join(names) or "no rows",
            kind="layout",
        )
    return rows, unused


def _take(
    row: TableRow,
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
    id = unicodedata.normalize("NFC", row.get("case") or case_name(image))
    if id in files:
        return "an id for each case", f"a second {id!r}", "same-id"
    word = row.get("part", "")
    part = part_named(word)
    if word and not part:
        return "train, valid or test as part", repr(word), "layout"
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


def _ids(image: Path, mask: Path | None, geometry: Geometry) -> list[int]:
    """The ids in one mask; damaged files are for the reader to report."""
    try:
        if mask is not None:
            label = read_label_case(mask, geometry=geometry, scaled=False).label
        else:
            label = read_case(image, geometry=geometry).label
    except SegweaveError:
        return []
    return [] if label is None else ids_in(label)


def _read(
    image: Path, mask: Path | None, id: str, group: str, geometry: Geometry, scaled: bool
) -> Case:
    case = read_volume([image], mask, id=id, group=group, geometry=geometry, scaled=scaled)
    labelled(case, image)
    return case
