"""A folder of anyone's images and a folder of their masks, matched by name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.splits import PARTS, cases_of, seeded_split
from segweave.data.splits.folds import usual_folds
from segweave.datasets._groups import groups_by, half_filled, rows_by_case
from segweave.datasets.base import Item, LeftOut, Plan, alone, few
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats import Geometry, case_name, find_images, read_array, read_case, read_label
from segweave.formats.files import visible
from segweave.formats.label_ids import scaled_ids
from segweave.formats.table import suffix_of
from segweave.registry import DatasetCard

CARD = DatasetCard(
    name="folder",
    title="a folder of images and a folder of masks",
    entry="plan",
    stack="single",
    kind="binary",
    classes=("background", "foreground"),
)

MASK_ENDINGS = ("_mask", "_segmentation", "_seg", "_gt", "_label", "_labels", "_anno", "_manual")
_COLOURS = ("#000000", "#e4572e", "#3b8fd6", "#45b36b", "#f2b134", "#8e5ea2", "#17becf", "#8c564b")
_DOING = "preparing a folder of images"
_READING = "reading a table of cases"
_MOST = 31


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
    """Match every image in `source` with the mask of its name in `masks` (which may be `source`).

    A mask's name is the image's, with or without an ending such as `_mask`, `_segmentation` or
    `_gt`. Masks hold class ids, or all of them 0 and 255, or are 1-bit; with `mask_threshold`
    whatever is above it is foreground. `kind` auto is binary where no id is above 1. `classes`
    names the foreground of a binary target, or all classes from id 0 (background) on. Groups come
    from `group`, a regular expression on the case's id (its first bracket, or the whole match), or
    from `cases`, a CSV file with the columns case, group and, if wanted, part (train, valid, test);
    else every image is its own. Without parts, groups are dealt out by `fractions` and `seed`.
    `geometry` decides where a NIfTI header contradicts itself (check, pixdim, affine). Raises
    InputError or UsageError for whatever does not fit.
    """
    if masks is None:
        raise UsageError(
            _DOING,
            expected="a folder of masks (masks)",
            found="none given",
            remedy="say where they are: masks=FOLDER",
        )
    folder = Path(masks)
    errors: list[SegweaveError] = []
    images = _by_name(find_images(source), errors)
    together = folder.resolve() == source.resolve()
    if together:
        images = {name: p for name, p in images.items() if _without_ending(name) not in images}
    found = _mask_files(folder, set(images) if together else set(), errors)
    pairs, left_out = _matched(images, found, errors)
    table = _read_table(Path(cases)) if cases is not None else {}
    told = _groups(list(pairs), group, table)
    errors += half_filled(told, _DOING, Path(cases)) if cases is not None else []
    groups = {id: name or id for id, name in told.items()}
    held = {mask: _mask_values(mask, mask_threshold, geometry) for _, mask in pairs.values()}
    white, held = scaled_ids(held)
    target = _target(kind, classes, held, white, errors)
    warnings = _too_dark(held, mask_threshold)
    grouped = any(told.values())
    if not grouped:
        warnings.append("every image is its own group; if patients have several, say so (group)")
    scaled = white and target.white_is_one
    items = [
        Item(
            id,
            (image, mask),
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
    if threshold is None:
        return read_case(image, label=mask, id=id, group=group, geometry=geometry, scaled=scaled)
    case = read_case(image, id=id, group=group, geometry=geometry, with_label=False)
    label = _above(mask, threshold)
    if label.shape != (case.slices, *case.size):
        raise InputError(
            "reading a label map",
            file=mask,
            expected=f"the image's size {case.size[0]} × {case.size[1]}",
            found=" × ".join(str(n) for n in label.shape[1:]),
            remedy="check that image and mask belong together",
            kind="size",
        )
    return replace(case, label=label)


def _above(mask: Path, threshold: int) -> NDArray[np.uint8]:
    above: NDArray[np.bool_] = np.any(read_array(mask) > threshold, axis=1)
    return above.astype(np.uint8)


def _mask_values(mask: Path, threshold: int | None, geometry: Geometry) -> list[int]:
    """The ids in a mask; damaged files are for the reader to report."""
    if threshold is not None:
        return [0, 1]
    try:
        return _ids(mask, geometry)
    except SegweaveError:
        return []


def _too_dark(masks: Iterable[Path], threshold: int | None) -> list[str]:
    """What is to be said where a threshold makes all of all masks background."""
    if threshold is None:
        return []
    highest = []
    for mask in masks:
        try:
            highest.append(read_array(mask).max())
        except SegweaveError:
            return []  # for the reader to report
        if highest[-1] > threshold:
            return []
    return [f"no mask is above the threshold {threshold}: the highest value is {max(highest):g}"]


def _ids(mask: Path, geometry: Geometry) -> list[int]:
    own = read_array(mask)[:, :1]
    stand_in = Case(
        id=case_name(mask), group="", image=own, stack="single" if len(own) == 1 else "space"
    )
    label = read_label(mask, stand_in, geometry=geometry, scaled=False)
    return [int(value) for value in np.unique(label)]


def _by_name(paths: Sequence[Path], errors: list[SegweaveError]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = case_name(path)
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
        if not path.is_file() or not suffix_of(path) or case_name(path) in images:
            continue
        name = case_name(path)
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
            _DOING, file=folder, expected="at least one mask", found="none", kind="missing"
        )
    return found


def _without_ending(name: str) -> str:
    """The name of a mask's image, or "" where it bears no ending of a mask."""
    ending = next((e for e in MASK_ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] if ending else ""


def _matched(
    images: Mapping[str, Path], masks: Mapping[str, Path], errors: Sequence[SegweaveError]
) -> tuple[dict[str, tuple[Path, Path]], list[LeftOut]]:
    # An image may bear such an ending itself ("scan_label.png" with "scan_label.png").
    whole = {case_name(path): path for path in masks.values()}
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
    said = f"{len(lonely)} images have no mask and are left out: {few(lonely)}"
    left_out = alone(said, [images[name] for name in lonely], lacks="mask")
    said = f"{len(spare)} masks have no image: {few(names)}"
    return pairs, [*left_out, *alone(said, spare, lacks="image")]


def _target(
    kind: str,
    classes: Sequence[str] | None,
    held: Mapping[Path, Sequence[int]],
    white: bool,
    errors: list[SegweaveError],
) -> TargetSpec:
    if kind not in ("auto", "binary", "exclusive"):
        raise UsageError(_DOING, expected="kind auto, binary or exclusive", found=repr(kind))
    most = 1 if white else _MOST
    odd = sorted(mask for mask, ids in held.items() if max(ids, default=0) > most)
    if odd and classes is None and kind != "binary":
        ids = sorted({id for mask in odd for id in held[mask]})
        errors.append(
            InputError(
                _DOING,
                file=odd[0],
                expected="0 and 255 alone, as in most masks"
                if white
                else "class ids 0, 1, 2, ... in every mask",
                found=f"ids up to {ids[-1]} in {len(odd)} of {len(held)} masks: "
                f"{few([str(i) for i in ids])}",
                remedy="name the classes, or give a mask_threshold if they are grey masks",
                kind="labels",
            )
        )
    told = [ids for mask, ids in held.items() if mask not in odd or classes or kind == "binary"]
    highest = max((id for ids in told for id in ids), default=0)
    if kind == "binary" or (kind == "auto" and highest <= 1 and len(classes or ()) <= 2):
        names = tuple(classes or ("foreground",))
        names = ("background", *names) if len(names) == 1 else names
        return TargetSpec(kind="binary", names=names, colours=_COLOURS[: len(names)])
    names = tuple(classes or ("background", *(f"class {i}" for i in range(1, highest + 1))))
    colours = tuple(_COLOURS[1 + (i - 1) % 7] if i else _COLOURS[0] for i in range(len(names)))
    return TargetSpec(kind="exclusive", names=names, colours=colours)


def _groups(
    ids: Sequence[str], pattern: str | None, table: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Case id → group, "" where neither the pattern nor the table says it."""
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
        part = table[id].get("part", "")
        if part not in parts:
            raise InputError(
                _DOING,
                expected="train, valid or test as part",
                found=f"{part!r} for {id}",
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


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(_READING, file=path, found=str(error), kind="layout") from error
    if not rows or "case" not in rows[0] or not {"group", "part"} & set(rows[0]):
        raise InputError(
            _READING,
            file=path,
            expected="the columns case, group and, if wanted, part",
            found=", ".join(str(name) for name in rows[0]) if rows else "no rows",
            kind="layout",
        )
    return rows_by_case(rows, "case", ("group", "part"), doing=_READING, file=path)
