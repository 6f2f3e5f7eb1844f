"""An nnU-Net data set (imagesTr, labelsTr, dataset.json; versions 1 and 2)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, ids_in
from segweave.data.specs import TargetSpec
from segweave.data.splits import PARTS, mark_leaking
from segweave.datasets._groups import BY_NAME, groups_by, own_group_warning, read_rows, rows_by_case
from segweave.datasets._volumes import (
    exclusive_target,
    labelled,
    read_volume,
    splits_by,
)
from segweave.datasets.base import Item, LeftOut, Plan, alone, collected
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats import Geometry
from segweave.formats.table import SUFFIXES
from segweave.registry import DatasetCard
from segweave.storage import read_json, read_json_value
from segweave.words import few

CARD = DatasetCard(
    name="nnunet",
    title="an nnU-Net data set (DatasetXXX_NAME)",
    entry="plan",
    stack="space",
    kind="exclusive",
)

_DOING = "preparing an nnU-Net data set"


@dataclass(frozen=True)
class Labels:
    """The classes in dataset.json: the target and, where they overlap, the ids of each
    region.
    """

    target: TargetSpec
    regions: tuple[tuple[int, ...], ...] = ()


def plan(
    source: Path,
    *,
    group: str | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    geometry: Geometry = "check",
) -> Plan:
    """Read what nnU-Net trains on: `imagesTr/ID_0000.nii.gz` (one file per channel) with
    `labelsTr/ID.nii.gz`, and where both are there `imagesTs` with `labelsTs` as test cases.

    Classes come from dataset.json; regions (lists of ids) become overlapping classes, `ignore` the
    ignored value. The splits of a splits_final.json in the same folder are kept as fold-0, ..., as
    fold-0-leaks where a group is in two parts. Without `group` the groups are those of the table
    cases.csv that `export-nnunet` leaves, and the parts that it names become the split `given`.

    Args:
        source: The folder of the data set (DatasetXXX_NAME).
        group: A regular expression that finds the patient in a case's id.
        fractions: Shares of groups for train, valid and test.
        seed: Decides which groups go where, when they are dealt out by fractions.
        geometry: What decides where a NIfTI header contradicts itself: check (refuse), pixdim,
            affine (the sform) or qform.

    Raises InputError where it is not an nnU-Net data set.
    """
    folder = _folder(source)
    about = read_json(folder / "dataset.json", _DOING)
    labels = _labels(about, folder / "dataset.json")
    channels = about.get("channel_names") or about.get("modality") or {}
    if not isinstance(channels, dict) or not channels:
        raise InputError(
            _DOING,
            file=folder / "dataset.json",
            expected="channel_names",
            found=str(channels)[:80],
            kind="layout",
        )
    ending = str(about.get("file_ending", ".nii.gz"))
    if ending not in SUFFIXES:
        raise InputError(
            _DOING,
            file=folder / "dataset.json",
            expected="a file_ending among " + " ".join(SUFFIXES),
            found=ending,
            kind="layout",
        )
    missing: list[str] = []
    left_out: list[LeftOut] = []
    items: dict[str, Item] = {}
    read = partial(_read, labels=labels, channels=len(channels), geometry=geometry)
    found: dict[str, dict[str, tuple[tuple[Path, ...], Path]]] = {}
    for part in ("Tr", "Ts"):
        if part == "Tr" or (folder / "labelsTs").is_dir():
            found[part] = _pairs(folder, part, ending, len(channels), left_out)
    ids = [id for pairs in found.values() for id in pairs]
    errors: list[SegweaveError] = []
    table: dict[str, dict[str, str]] = collected(
        errors, partial(_exported, folder / "cases.csv"), {}
    )
    group_of = {id: table[id]["group"] for id in ids if table.get(id, {}).get("group")}
    groups = (
        groups_by(ids, group, _DOING) if group is not None else {id: id for id in ids} | group_of
    )
    grouped = group is not None or len(group_of) == len(ids)
    warnings = own_group_warning(grouped, BY_NAME)
    if not grouped and group_of:
        lost = [id for id in ids if id not in group_of]
        warnings = [f"cases.csv names no group of {few(lost)}: each is its own"]
    for pairs in found.values():
        for id, (images, label) in pairs.items():
            if id in items:
                errors.append(
                    InputError(
                        _DOING,
                        file=label,
                        expected="an id for each case",
                        found=f"{id!r} in imagesTr and in imagesTs",
                        kind="same-id",
                    )
                )
                continue
            one = partial(read, images, label, id, groups[id])
            items[id] = Item(id, (*images, label), one, group=groups[id])
    more: dict[str, dict[str, list[str]]] = collected(errors, partial(_given, folder, found), {})
    named = {id: table[id]["part"] for id in ids if table.get(id, {}).get("part")}
    if named:
        parts = dict.fromkeys((*PARTS, *named.values()))
        more["given"] = {part: [id for id in named if named[id] == part] for part in parts}
    more, leaking = mark_leaking(more, groups)
    warnings += leaking
    wanted = about.get("numTraining")
    if isinstance(wanted, int) and wanted != len(found["Tr"]):
        missing.append(
            f"dataset.json declares {wanted} training cases, {len(found['Tr'])} are there"
        )
    return Plan(
        layout="nnunet",
        target=labels.target,
        items=list(items.values()),
        splits=splits_by(fractions, seed, list(found.get("Ts", {})), more),
        missing=missing,
        warnings=warnings,
        grouped=grouped,
        options=f"geometry {geometry}",
        provenance={
            "name": str(about.get("name", folder.name)),
            "channels": [str(channels[key]) for key in sorted(channels, key=_number)],
            "split": ", ".join([f"seed {seed}, by group", *more]),
        },
        errors=errors,
        left_out=left_out,
    )


def _folder(source: Path) -> Path:
    def fits(folder: Path) -> bool:
        return (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir()

    if fits(source):
        chosen = [source]
    else:
        below = sorted(source.iterdir()) if source.is_dir() else []
        chosen = [folder for folder in below if folder.is_dir() and fits(folder)]
    if len(chosen) != 1:
        raise InputError(
            _DOING,
            file=source,
            expected="a folder with dataset.json, imagesTr and labelsTr",
            found=", ".join(folder.name for folder in chosen) or "none",
            remedy="give the folder of one data set",
            kind="layout",
        )
    ids = re.compile(r".+_\d{4}\.[a-z.]+")
    if not any(ids.fullmatch(path.name) for path in (chosen[0] / "imagesTr").iterdir()):
        raise InputError(
            _DOING,
            file=chosen[0] / "imagesTr",
            expected="images ID_0000.nii.gz, one file per channel",
            found="none",
            remedy="if it comes from the Medical Segmentation Decathlon, prepare it as decathlon",
            kind="layout",
        )
    return chosen[0]


def _number(text: Any) -> int:
    return int(text) if str(text).isdigit() else 0


def _labels(about: dict[str, Any], file: Path) -> Labels:
    raw = about.get("labels")
    if not isinstance(raw, dict) or not raw:
        raise InputError(_DOING, file=file, expected="labels", found=str(raw)[:80], kind="layout")
    if all(str(key).isdigit() for key in raw):
        raw = {str(name): int(key) for key, name in raw.items()}
    try:
        sets = {
            str(name): tuple(int(i) for i in (ids if isinstance(ids, list) else [ids]))
            for name, ids in raw.items()
        }
    except (TypeError, ValueError) as error:
        raise InputError(
            _DOING,
            file=file,
            expected="labels of ids or lists of ids",
            found=str(raw)[:120],
            kind="layout",
        ) from error
    ignored = sets.pop("ignore", (None,))[0]
    if all(len(ids) == 1 for ids in sets.values()):
        target = exclusive_target({ids[0]: name for name, ids in sets.items()}, _DOING, file)
        return Labels(target.model_copy(update={"ignored": ignored}))
    if ignored is not None:
        raise UsageError(
            _DOING, file=file, expected="regions without an ignored value", found="ignore"
        )
    regions = {name: ids for name, ids in sets.items() if ids != (0,)}
    names = tuple(regions)
    target = TargetSpec(kind="overlapping", names=names)
    return Labels(target, tuple(regions.values()))


def _pairs(
    folder: Path, part: str, ending: str, channels: int, left_out: list[LeftOut]
) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """Case id → files of its channels and its label, of the training (Tr) or test (Ts) part."""
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(ending))
    numbered: dict[str, dict[int, Path]] = {}
    for path in sorted((folder / f"images{part}").glob(f"*{ending}")):
        if (match := pattern.fullmatch(path.name)) and not path.name.startswith("."):
            numbered.setdefault(match[1], {})[int(match[2])] = path
    labels = {
        path.name.removesuffix(ending): path
        for path in sorted((folder / f"labels{part}").glob(f"*{ending}"))
        if not path.name.startswith(".")
    }
    # One file per channel; pictures of several channels have one file in all.
    counts = Counter(len(files) for files in numbered.values())
    most = channels if channels in counts else max(counts, key=counts.__getitem__, default=0)
    pairs = {}
    for id, files in numbered.items():
        if id not in labels:
            lacks = f"labels{part}/{id}{ending}"
            message = f"{lacks} is not there, the case is left out"
            left_out += alone(message, list(files.values()), lacks=lacks)
        elif extra := [path for k, path in sorted(files.items()) if k >= most]:
            message = f"images{part}: {few([path.name for path in extra])} is beyond the channels"
            expected = f"channels up to {most - 1:04d}"
            faults = [
                InputError(
                    _DOING,
                    file=path,
                    expected=expected,
                    found="one more, left out",
                    kind="layout",
                )
                for path in extra
            ]
            there = (*(path for path in files.values() if path not in extra), labels[id])
            left_out.append(LeftOut(f"{message}, the case is left out", list(faults), there))
        elif sorted(files) != list(range(most)):
            absent = few([f"{id}_{k:04d}{ending}" for k in range(most) if k not in files])
            message = f"images{part}: no {absent}, the case is left out"
            left_out += alone(message, [labels[id], *files.values()], lacks=absent)
        else:
            pairs[id] = (tuple(files[k] for k in range(most)), labels[id])
    for id in sorted(set(labels) - set(numbered)):
        lacks = f"images{part}/{id}_0000{ending}"
        message = f"{lacks} is not there, its label is left out"
        left_out += alone(message, [labels[id]], lacks=lacks)
    return pairs


def _given(folder: Path, found: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """The folds of splits_final.json."""
    path = folder / "splits_final.json"
    if not path.is_file():
        return {}
    expected = "a list of folds, each with train and val"
    folds = read_json_value(path, _DOING, expected=expected)
    try:
        test = list(found.get("Ts", {}))
        return {
            f"fold-{k}": {"train": list(fold["train"]), "valid": list(fold["val"]), "test": test}
            for k, fold in enumerate(folds)
        }
    except (KeyError, TypeError) as error:
        raise InputError(
            _DOING,
            file=path,
            expected=expected,
            found=f"{type(error).__name__}: {error}"[:150],
            kind="layout",
        ) from error


def _exported(path: Path) -> dict[str, dict[str, str]]:
    """Case → its group and part, each perhaps "", of the table that `export-nnunet` writes;
    another's table is left alone.
    """
    if not path.is_file():
        return {}
    rows = read_rows(path, _DOING)
    if not rows or set(rows[0]) - {"slice"} != {"case", "id", "group", "part"}:
        return {}
    return rows_by_case(rows, "case", ("group", "part"), doing=_DOING, file=path)


def _read(
    images: tuple[Path, ...],
    label: Path,
    id: str,
    group: str,
    *,
    labels: Labels,
    channels: int,
    geometry: Geometry,
) -> Case:
    case = read_volume(
        images, label, id=id, group=group, geometry=geometry, scaled=labels.target.white_is_one
    )
    if case.image.shape[1] != channels:
        raise InputError(
            "reading the channels of an image",
            file=images[0],
            expected=f"{channels} channels, as dataset.json declares",
            found=f"{case.image.shape[1]} in {len(images)} files",
            kind="layout",
        )
    if not labels.regions:
        return case
    return replace(case, label=_split(labelled(case, label), labels.regions, label))


def _split(
    label: NDArray[np.uint8], regions: tuple[tuple[int, ...], ...], file: Path
) -> NDArray[np.uint8]:
    """Class ids → one 0/1 map a region (slices, regions, height, width)."""
    known = {0, *(i for ids in regions for i in ids)}
    unknown = sorted(set(ids_in(label)) - known)
    if unknown:
        raise InputError(
            "reading a label map",
            file=file,
            expected=f"ids {sorted(known)} of dataset.json",
            found=f"{unknown}",
            kind="labels",
        )
    return np.stack([np.isin(label, ids).astype(np.uint8) for ids in regions], axis=1)
