"""GlaS, the gland segmentation challenge: colon histology with a number for every gland."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.splits import seeded_split
from segweave.datasets._groups import read_rows
from segweave.datasets._pairs import Pair, PairFolders, find_pairs, pair_folders, subfolder
from segweave.datasets._pictures import (
    FRACTIONS,
    Splits,
    common_splits,
    provenance_of,
    read_mask,
    short_parts,
    target_of,
)
from segweave.datasets.base import Item, Plan, choose_layout, collected
from segweave.errors import InputError, UsageError, nearest
from segweave.formats import read_array, read_case, read_label_case
from segweave.formats.table import suffix_of
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="glas",
    title="GlaS, glands in colon histology (MICCAI 2015)",
    entry="plan",
    paper="Sirinukunwattana, Pluim, Chen et al., Gland segmentation in colon histology images: The "
    "GlaS challenge contest, Medical Image Analysis 35, 2017, doi 10.1016/j.media.2016.08.008",
    licence="research only, no commercial use",
    stack="single",
    kind="binary",
    classes=("background", "gland"),
    expected={"cases": 165},
    terms="The papers must be cited.",
)

_PARTS = {"train": 85, "testA": 60, "testB": 20}
_NAME = r"((?:train|testA|testB)_\d+)"
_FOLDERS = (("Train_Folder", "train"), ("Val_Folder", "valid"), ("Test_Folder", "test"))


def plan(
    source: Path,
    *,
    layout: Literal["auto", "release", "labelcol"] = "auto",
    unit: Literal["patient", "image"] = "patient",
) -> Plan:
    """Find GlaS: `release` (train_N, testA_N and testB_N with their _anno, and Grade.csv) or
    `labelcol` (folders img and labelcol, here or below Train_Folder, Val_Folder and Test_Folder).

    The label is gland or not; `Case.instances` holds the number of each gland where the masks have
    them (a mask of 0 and 255 has none). `unit="patient"` (from Grade.csv): splits `seed-0` and up
    to five folds by patient. The challenge's own parts share patients; `unit="image"` offers them,
    counting every image as its own group: `official-leaks` (train; both test parts as test) and
    `official-a-b-leaks` (train, testA, testB). Without Grade.csv it is `unit="image"`; one that
    does not name every image is refused.

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        unit: What a group is: a patient, or an image (as the challenge splits them).

    Raises InputError where no layout fits, UsageError where several do.
    """
    if unit not in ("patient", "image"):
        raise UsageError(
            "preparing GlaS",
            found=f"unit={unit!r}",
            remedy=nearest(str(unit), ("patient", "image")),
        )
    finders = {"release": _release, "labelcol": _labelcol}
    expected = "train_N.bmp with train_N_anno.bmp, or folders img and labelcol"
    name, where = choose_layout("GlaS", source, layout, finders, expected)
    pairs, left_out, errors = find_pairs(where)
    missing: list[str] = []
    folders = (source, where[0].images, where[0].images.parent)
    table = next((f / "Grade.csv" for f in folders if (f / "Grade.csv").is_file()), None)
    facts: dict[str, dict[str, Any]] = collected(errors, partial(_facts, table), {})
    warnings: list[str] = []
    ids = [pair.id for pair in pairs]
    unknown = [id for id in ids if id not in facts]
    if unknown and facts and unit == "patient":
        errors.append(
            InputError(
                "reading which patient an image of GlaS is of",
                file=table,
                expected="a row for every image",
                found=f"none for {len(unknown)}: {few(unknown)}",
                remedy="complete it, or leave patients aside with unit=image",
                kind="layout",
            )
        )
    elif unknown:
        warnings.append(
            f"no Grade.csv has the patient of {len(unknown)} images: every image counts as "
            "its own group"
        )
    by_patient = unit == "patient" and not unknown
    home = {id: facts[id]["patient"] if by_patient else id for id in ids}
    if name == "release":
        missing += short_parts(_PARTS, Counter(id.partition("_")[0] for id in ids))
    splits = common_splits(home) if by_patient else _official(pairs)
    leaking = [split for split in splits if split.endswith("-leaks")]
    if leaking:
        warnings.append(
            f"{', '.join(leaking)}: training and test share patients, so scores say little about "
            "new ones"
        )
    return Plan(
        layout=name,
        target=target_of(CARD),
        items=[
            Item(
                pair.id,
                (pair.image, pair.mask),
                partial(_read, pair, home[pair.id], facts.get(pair.id, {}), name == "release"),
                (
                    (pair.image, partial(read_array, pair.image)),
                    (pair.mask, partial(_glands, pair, name == "release")),
                ),
            )
            for pair in pairs
        ],
        splits=lambda there: splits,
        missing=missing,
        warnings=warnings,
        grouped=by_patient,
        errors=errors,
        left_out=left_out,
        options=f"unit {unit}, {facts}",
        provenance=provenance_of(CARD),
    )


def _release(source: Path) -> list[PairFolders]:
    folders = [source, *(p for p in sorted(source.glob("Warwick*")) if p.is_dir())]
    for folder in folders:
        if any(folder.glob("*_anno.*")) and subfolder(folder, "img") is None:
            return [PairFolders(folder, folder, _NAME, f"{_NAME}_anno")]
    return []


def _labelcol(source: Path) -> list[PairFolders]:
    mask = "(.+?)(?:_anno)?"
    here = pair_folders([source], ("img",), ("labelcol",), image="(.+)", mask=mask)
    if here:
        return here
    found: list[PairFolders] = []
    for folder, part in _FOLDERS:
        root = subfolder(source, folder)
        found += pair_folders([root], ("img",), ("labelcol",), image="(.+)", mask=mask, part=part)
    return found


def _official(pairs: list[Pair]) -> Splits:
    """The challenge's parts (or those of the folders), which share patients; a random split where
    there is none.
    """
    kind = {pair.id: pair.part or pair.id.partition("_")[0] for pair in pairs}
    ids = {part: [id for id in kind if kind[id] == part] for part in {*kind.values()}}
    train, valid = ids.get("train", []), ids.get("valid", [])
    tests = [*ids.get("testA", []), *ids.get("testB", []), *ids.get("test", [])]
    if not train or not tests:
        return {"random-70-10-20-leaks": seeded_split(list(kind), FRACTIONS, 0)}
    splits: Splits = {"official-leaks": {"train": train, "valid": valid, "test": tests}}
    if ids.get("testA") and ids.get("testB"):
        apart = {"testA": ids["testA"], "testB": ids["testB"]}
        splits["official-a-b-leaks"] = {"train": train, "valid": valid, **apart}
    return splits


def _read(pair: Pair, group: str, facts: dict[str, Any], numbered: bool) -> Case:
    case = read_case(pair.image, id=pair.id, group=group, stack="single", with_label=False)
    case = replace(case, attributes={**case.attributes, **facts})
    label, numbers = _glands(pair, numbered)
    return replace(case, label=label, instances=numbers)


def _glands(pair: Pair, numbered: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint16] | None]:
    """Gland or not, and the number of each gland where the mask holds them."""
    held = np.unique(read_array(pair.mask))
    # A mask of 0 and 255 alone has lost the numbers.
    white = held[-1] == 255 and len(held) <= 2
    if white or not (numbered or 1 < held[-1] <= 127):
        return read_mask(pair.mask)[None], None
    if suffix_of(pair.mask) in (".jpg", ".jpeg"):
        raise InputError(
            "reading the numbers of glands",
            file=pair.mask,
            expected="a label map of integers, stored without loss",
            found="JPEG, whose noise counts as glands",
            remedy="take the file as it was released (BMP or PNG)",
            kind="labels",
        )
    numbers = read_label_case(pair.mask, scaled=False).label
    assert numbers is not None
    return (numbers > 0).astype(np.uint8), numbers.astype(np.uint16)


def _facts(path: Path | None) -> dict[str, dict[str, Any]]:
    """Image → patient and grade, from Grade.csv."""
    if path is None:
        return {}
    doing = "reading which patient an image of GlaS is of"
    columns = "the columns name, patient ID and grade (GlaS)"
    rows = read_rows(path, doing, columns)
    try:
        return {
            row["name"]: {
                "patient": f"patient{int(row['patient ID']):02d}",
                "grade": row[_grade(row)],
            }
            for row in rows
            if row.get("name")
        }
    except (KeyError, ValueError, StopIteration) as error:
        raise InputError(
            doing,
            file=path,
            expected=columns,
            found=f"{type(error).__name__}: {error}",
            kind="layout",
        ) from error


def _grade(row: dict[str, str]) -> str:
    return next(key for key in row if key.startswith("grade"))
