"""A folder of your own images and a folder of their masks, matched by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from segweave.data.case import Case, ids_in
from segweave.data.splits import PARTS, cases_of, part_named, seeded_split
from segweave.data.splits.folds import usual_folds
from segweave.datasets._groups import (
    BY_NAME,
    groups_by,
    half_filled,
    own_group_warning,
    read_rows,
    rows_by_case,
)
from segweave.datasets.base import Item, LeftOut, Plan, alone
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats import (
    Geometry,
    find_images,
    read_case,
    read_label,
    read_label_case,
)
from segweave.formats.content import Request
from segweave.formats.csv_table import check_columns
from segweave.formats.files import files_of, label_ending, visible
from segweave.formats.label_ids import check_kind, target_of_ids, target_of_names, too_many_names
from segweave.formats.read import read_content
from segweave.formats.table import suffix_of, whole_name
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="folder",
    title="a folder of images and a folder of masks",
    entry="plan",
    stack="single",
    kind="binary",
    classes=("background", "foreground"),
    generic=True,
    examples=(
        (
            "segweave prepare folder images masks stores/mine",
            "a.jpg and a.png, or a.jpg and a_mask.png",
        ),
        (
            "segweave prepare folder images masks stores/mine --group '^(p[0-9]+)_'",
            "p12_left.png and p12_right.png are of one patient, p12",
        ),
        (
            "segweave prepare folder images masks stores/mine --mask-threshold 127",
            "grey masks: whatever is brighter is foreground",
        ),
    ),
)

_DOING = "preparing a folder of images"
_READING = "reading a table of cases"
_COLUMNS = ("case", "group", "part")


def plan(
    source: Path,
    *,
    masks: str | Path | None = None,
    kind: Literal["auto", "binary", "exclusive"] = "auto",
    classes: Sequence[str] | None = None,
    mask_threshold: int | None = None,
    group: str | None = None,
    cases: str | Path | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    geometry: Geometry = "check",
) -> Plan:
    """Match every image, or every volume, with the mask of its name.

    A mask's name is the image's, with or without an ending such as `_mask`, `_segmentation` or
    `_gt`. Masks hold class ids, or all of them 0 and 255, or are 1-bit; JPEG masks hold 0 and 255
    with noise. Groups come from `group` or from `cases`; else every image is its own group.

    Args:
        source: The folder of images.
        masks: The folder of masks, each with the name of its image; may be the folder of images.
        kind: Foreground and background (binary), or several classes (exclusive); auto is binary
            where no id is above 1.
        classes: Names of the classes from id 1 on; background may be given before them.
        mask_threshold: In grey masks, what is above this is foreground; masks of 0 and 1 stay.
        group: A regular expression that finds the patient in an image's name (its first bracket, or
            the whole match).
        cases: A CSV table with case, group and, if wanted, part (train, valid, test).
        fractions: Shares of groups for train, valid and test.
        seed: Decides which groups go where, when they are dealt out by fractions.
        geometry: What decides where a NIfTI header contradicts itself: check (refuse), pixdim,
            affine (the sform) or qform.

    Raises InputError or UsageError for whatever does not fit.
    """
    if masks is None:
        raise UsageError(
            _DOING,
            expected="a folder of masks (masks)",
            found="none given",
            remedy="say where they are: masks=FOLDER (of segweave check: --option masks=FOLDER)",
        )
    folder = Path(masks)
    errors: list[SegweaveError] = []
    images = _by_name(find_images(source), errors)
    together = folder.resolve() == source.resolve()
    if together:
        images = {name: p for name, p in images.items() if _without_ending(name) not in images}
    found = _mask_files(folder, set(images) if together else set(), errors)
    pairs, left_out = _matched(images, found, errors)
    table, unused = _read_table(Path(cases)) if cases is not None else ({}, [])
    given_groups = _groups(list(pairs), group, table)
    errors += half_filled(given_groups, _DOING, Path(cases)) if cases is not None else []
    groups = {id: name or id for id, name in given_groups.items()}
    found_masks = [mask for _, mask in pairs.values()]
    check_kind(kind, _DOING)
    if classes:
        target = target_of_names(classes, kind)
        scaled = target.white_is_one
        if not target.one_class:
            held = {mask: _mask_values(mask, mask_threshold, geometry) for mask in found_masks}
            errors += too_many_names(classes, held, _DOING)
    else:
        held = {mask: _mask_values(mask, mask_threshold, geometry) for mask in found_masks}
        target, scaled, faults = target_of_ids(held, _DOING, kind)
        errors += faults
    warnings = unused + _too_dark(found_masks, mask_threshold)
    grouped = any(given_groups.values())
    warnings += own_group_warning(grouped, f"{BY_NAME}, or a table (cases)")
    items = [
        Item(
            id,
            (*files_of(image), mask),
            partial(_read, image, mask, id, groups[id], mask_threshold, geometry, scaled),
            group=groups[id],
        )
        for id, (image, mask) in pairs.items()
    ]
    parts = _given_parts(table, groups)
    if parts is None:
        name, parts = f"seed-{seed}", seeded_split(list(groups.values()), fractions, seed)
    else:
        name = "given"
    return Plan(
        layout="pairs",
        target=target,
        items=items,
        splits=lambda here: {name: cases_of(parts, here), **usual_folds(here, seed)},
        errors=errors,
        left_out=left_out,
        warnings=warnings,
        grouped=grouped,
        options=f"threshold {mask_threshold}, geometry {geometry}, scaled {scaled}",
        provenance={"split": f"{name}, by group"},
    )


def _read(
    image: Path,
    mask: Path,
    id: str,
    group: str,
    threshold: int | None,
    geometry: Geometry,
    scaled: bool,
) -> Case:
    case = read_case(image, id=id, group=group, geometry=geometry, with_label=False)
    label = read_label(mask, case, geometry=geometry, scaled=scaled, threshold=threshold)
    return replace(case, label=label)


def _mask_values(mask: Path, threshold: int | None, geometry: Geometry) -> list[int]:
    """The ids in a mask; damaged files are for the reader to report."""
    if threshold is not None:
        return [0, 1]
    try:
        label = read_label_case(mask, geometry=geometry, scaled=False).label
    except SegweaveError:
        return []
    return [] if label is None else ids_in(label)


def _too_dark(masks: Iterable[Path], threshold: int | None) -> list[str]:
    """A warning where a threshold makes all of all masks background."""
    if threshold is None:
        return []
    highest = []
    for mask in masks:
        try:
            content = read_content(mask, Request(_DOING, "affine", as_label=True, grey=True))
            highest.append(0 if content.label is None else content.label.max())
        except SegweaveError:
            return []  # for the reader to report
        if highest[-1] > threshold or highest[-1] == 1:
            return []
    return [f"no mask is above the threshold {threshold}: the highest value is {max(highest):g}"]


def _by_name(paths: Sequence[Path], errors: list[SegweaveError]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = whole_name(path)
        if name in found:
            errors.append(
                InputError(
                    _DOING,
                    file=path,
                    expected="a name for each case",
                    found=f"a second {name!r}, beside {found[name]}",
                    remedy="give the files different names",
                    kind="same-id",
                )
            )
        found.setdefault(name, path)
    return found


def _mask_files(folder: Path, images: set[str], errors: list[SegweaveError]) -> dict[str, Path]:
    """Masks by the name that their image should have."""
    if not folder.is_dir():
        raise InputError(
            _DOING, file=folder, expected="a folder of masks", found="no folder", kind="missing"
        )
    found: dict[str, Path] = {}
    for path in visible(folder):
        if not path.is_file() or not suffix_of(path) or whole_name(path) in images:
            continue
        name = whole_name(path)
        short = _without_ending(name) or name
        if short in found:
            errors.append(
                InputError(
                    _DOING,
                    file=path,
                    expected=f"one mask of {short!r}",
                    found=f"also {found[short]}",
                    kind="same-id",
                )
            )
        found.setdefault(short, path)
    if not found:
        raise InputError(
            _DOING,
            file=folder,
            expected="at least one mask"
            + (" whose name is that of an image and _mask, _gt or the like" if images else ""),
            found="none; images and masks are the same folder" if images else "none",
            remedy="give the folder of the masks, which differs from that of the images"
            if images
            else "PNG, JPEG, TIFF, BMP, NIfTI, HDF5 and NumPy files are read",
            kind="missing",
        )
    return found


def _without_ending(name: str) -> str:
    """The name of a mask's image, or "" where it carries no ending of a mask."""
    ending = label_ending(name)
    return name.removesuffix(ending) if ending else ""


def _matched(
    images: Mapping[str, Path], masks: Mapping[str, Path], errors: Sequence[SegweaveError]
) -> tuple[dict[str, tuple[Path, Path]], list[LeftOut]]:
    # An image may carry such an ending itself ("scan_label.png" with "scan_label.png").
    whole = {whole_name(path): path for path in masks.values()}
    pairs = {
        name: (path, whole.get(name) or masks[name])
        for name, path in sorted(images.items())
        if name in whole or name in masks
    }
    used = {mask for _, mask in pairs.values()}
    lonely = [name for name in sorted(images) if name not in pairs]
    spare = sorted(path for path in masks.values() if path not in used)
    names = [path.name for path in spare]
    if not pairs:
        raise (
            errors[0]
            if errors
            else InputError(
                _DOING,
                expected="masks with the names of their images (NAME.png or NAME_mask.png)",
                found=f"images {few(lonely, 3)}; masks {few(names, 3)}",
                kind="missing",
            )
        )
    message = f"{len(lonely)} images have no mask and are left out: {few(lonely)}"
    left_out = alone(message, [images[name] for name in lonely], lacks="mask")
    message = f"{len(spare)} masks have no image: {few(names)}"
    return pairs, [*left_out, *alone(message, spare, lacks="image")]


def _groups(
    ids: Sequence[str], pattern: str | None, table: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Case id → group, "" where neither the pattern nor the table has it."""
    absent = [id for id in ids if table and id not in table]
    if absent:
        raise InputError(
            _DOING, expected="a row for each case", found=f"none for {few(absent)}", kind="layout"
        )
    if pattern is not None:
        return groups_by(ids, pattern, _DOING)
    return {id: table.get(id, {}).get("group", "") for id in ids}


def _given_parts(
    table: Mapping[str, Mapping[str, str]], groups: Mapping[str, str]
) -> dict[str, list[str]] | None:
    if not any(row.get("part") for row in table.values()):
        return None
    parts: dict[str, set[str]] = {part: set() for part in PARTS}
    home: dict[str, str] = {}
    for id, group in groups.items():
        word = table[id].get("part", "")
        part = part_named(word)
        if not part:
            raise InputError(
                _DOING,
                expected="train, valid or test as part",
                found=f"{word!r} for {id}",
                kind="layout",
            )
        if home.setdefault(group, part) != part:
            raise InputError(
                _DOING,
                expected="every group in one part",
                found=f"{group!r} in {home[group]} and in {part}",
                kind="split",
            )
        parts[part].add(group)
    return {part: sorted(names) for part, names in parts.items()}


def _read_table(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Case → its group and part, and warnings."""
    rows = read_rows(path, _READING, own=True)
    unused = check_columns(list(rows[0]), _COLUMNS, _READING, path) if rows else []
    if not rows or "case" not in rows[0] or not {"group", "part"} & set(rows[0]):
        raise InputError(
            _READING,
            file=path,
            expected="the columns case, group and, if wanted, part",
            found=", ".join(str(name) for name in rows[0]) if rows else "no rows",
            kind="layout",
        )
    return rows_by_case(rows, "case", ("group", "part"), doing=_READING, file=path), unused
