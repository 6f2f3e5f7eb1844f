"""Synapse multi-organ (BTCV), abdominal CT, from the release or from TransUNet's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.splits import cases_of, seeded_split
from segweave.datasets._volumes import join_slices, labelled, read_labelled, read_volume, remapped
from segweave.datasets.base import Item, LeftOut, Plan, alone, choose_layout
from segweave.datasets.published_splits import load_split
from segweave.errors import UsageError, nearest
from segweave.formats import Geometry, read_case
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="synapse",
    title="Synapse multi-organ, abdominal CT of the challenge Beyond the Cranial Vault (BTCV)",
    entry="plan",
    paper="Landman, Xu, Igelsias, Styner, Langerak and Klein, MICCAI Multi-Atlas Labeling Beyond "
    "the Cranial Vault, Workshop and Challenge, 2015, doi 10.7303/syn3193805",
    licence="by registration at synapse.org (syn3193805)",
    stack="space",
    kind="exclusive",
    classes=(
        "background",
        "aorta",
        "gallbladder",
        "left kidney",
        "right kidney",
        "liver",
        "pancreas",
        "spleen",
        "stomach",
    ),
    expected={"groups": 30, "cases": 30, "slices": 3779},
    terms="Use as agreed at registration; do not pass the images on.",
    # The description of the challenge data.
    ranges={"slices": (85, 198), "size": (512, 512), "step": (2.5, 5.0), "pixel": (0.54, 0.98)},
)

THIRTEEN = (
    "background", "spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver",
    "stomach", "aorta", "inferior vena cava", "portal and splenic veins", "pancreas",
    "right adrenal gland", "left adrenal gland",
)  # fmt: skip
TO_EIGHT = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8}
"""Ids of the release → those of TransUNet's files."""
NUMBERS = (*range(1, 11), *range(21, 41))

_DOING = "looking for Synapse"
_IMAGE = re.compile(r"img(\d{4})\.nii(?:\.gz)?")
_LABEL = re.compile(r"label(\d{4})\.nii(?:\.gz)?")
_SLICE = re.compile(r"(case\d{4})_slice(\d+)\.npz")
_VOLUME = re.compile(r"(case\d{4})(?:\.npy)?\.h5")


def plan(
    source: Path,
    *,
    layout: Literal["auto", "raw", "transunet"] = "auto",
    organs: Literal["8", "13"] = "8",
    geometry: Geometry = "check",
) -> Plan:
    """Find Synapse in one of its layouts.

    `raw` is the release, `img/imgXXXX.nii.gz` and `label/labelXXXX.nii.gz`, here or below
    RawData/Training. `transunet` is `train_npz/caseXXXX_sliceZZZ.npz` and
    `test_vol_h5/caseXXXX.npy.h5`, here or below data/Synapse: no spacing, values clipped to
    -125..275 HU and scaled to 0..1. Case ids and groups are caseXXXX. Splits: `18-12` is the
    published one, which has no validation cases; `15-3-12` takes three of its training cases for
    validation.

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        organs: The 8 organs that papers score (the ids of TransUNet's files), or all 13 that the
            release labels.
        geometry: What decides where a NIfTI header contradicts itself: check (refuse), pixdim,
            affine (the sform) or qform.

    Raises InputError where no layout fits, UsageError where several do.
    """
    if organs not in ("8", "13"):
        raise UsageError(
            "choosing organs of Synapse", found=repr(organs), remedy=nearest(organs, ("8", "13"))
        )
    name, folder = choose_layout(
        "Synapse",
        source,
        layout,
        {"raw": _raw_folder, "transunet": _prepared_folder},
        "folders img and label with imgXXXX.nii.gz and labelXXXX.nii.gz, or train_npz and "
        "test_vol_h5",
    )
    if name == "transunet" and organs != "8":
        raise UsageError(
            _DOING, expected="the release for 13 organs", found="TransUNet's files, which have 8"
        )
    missing: list[str] = []
    warnings: list[str] = []
    left_out: list[LeftOut] = []
    if name == "raw":
        items, left_out = _raw(folder, organs, geometry)
    else:
        items, missing, warnings = _prepared(folder)
    here = {item.id for item in items}
    absent = [f"case{n:04d}" for n in NUMBERS if f"case{n:04d}" not in here]
    if absent:
        missing.insert(0, f"{len(absent)} cases are not there: {few(absent)}")
    classes = CARD.classes if organs == "8" else THIRTEEN
    return Plan(
        layout=name,
        target=TargetSpec(kind="exclusive", names=classes),
        items=sorted(items, key=lambda item: item.id),
        splits=_splits,
        missing=missing,
        warnings=warnings,
        left_out=left_out,
        options=f"organs {organs}, geometry {geometry}",
        provenance={
            "paper": CARD.paper,
            "licence": CARD.licence,
            "terms": CARD.terms,
            "split": load_split("synapse").source,
        },
    )


def _splits(groups: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    split = load_split("synapse")
    held = seeded_split(split.parts["train"], (5 / 6, 1 / 6, 0.0), 0)
    with_valid = {**held, "test": split.parts["test"]}
    return {split.name: split.cases(groups), "15-3-12": cases_of(with_valid, groups)}


# The release


def _raw_folder(source: Path) -> Path | None:
    below = ("", "Training", "RawData/Training", "Abdomen/RawData/Training", "averaged-training")
    for folder in (source / name for name in below):
        if (folder / "img").is_dir() and (folder / "label").is_dir():
            return folder
    return None


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Number → file; of two with one number, .nii.gz is taken."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if (match := pattern.fullmatch(path.name)) and path.is_file():
            found[match[1]] = path
    return found


def _raw(folder: Path, organs: str, geometry: Geometry) -> tuple[list[Item], list[LeftOut]]:
    images = _numbered(folder / "img", _IMAGE)
    labels = _numbered(folder / "label", _LABEL)
    left_out: list[LeftOut] = []
    for there, others, what in ((images, labels, "label"), (labels, images, "img")):
        for n in sorted(set(there) - set(others)):
            lacks = f"{what}{n}.nii.gz"
            message = f"{there[n].name} has no {lacks}, left out"
            left_out += alone(message, [there[n]], lacks=lacks)
    items = [
        Item(
            f"case{n}",
            (images[n], labels[n]),
            partial(_read_raw, images[n], labels[n], f"case{n}", organs, geometry),
        )
        for n in images
        if n in labels
    ]
    return items, left_out


def _read_raw(image: Path, label: Path, id: str, organs: str, geometry: Geometry) -> Case:
    case = read_volume([image], label, id=id, group=id, geometry=geometry, stack="space")
    if organs == "13":
        return case
    return replace(case, label=remapped(labelled(case, label), TO_EIGHT, known=13))


# TransUNet's files


def _prepared_folder(source: Path) -> Path | None:
    for folder in (source / name for name in ("", "Synapse", "data/Synapse")):
        if (folder / "train_npz").is_dir() or (folder / "test_vol_h5").is_dir():
            return folder
    return None


def _prepared(folder: Path) -> tuple[list[Item], list[str], list[str]]:
    slices: dict[str, dict[int, Path]] = {}
    volumes: dict[str, Path] = {}
    for path in sorted((folder / "train_npz").glob("*.npz")):
        if match := _SLICE.fullmatch(path.name):
            slices.setdefault(match[1], {})[int(match[2])] = path
    for path in sorted((folder / "test_vol_h5").glob("*.h5")):
        if match := _VOLUME.fullmatch(path.name):
            volumes[match[1]] = path
    items = [
        Item(id, (path,), partial(read_labelled, path, id=id, group=id))
        for id, path in volumes.items()
    ]
    missing: list[str] = []
    warnings = ["these files hold no spacing and no orientation: distances will be in pixels"]
    both = sorted(set(slices) & set(volumes))
    if both:
        warnings.append(
            f"in train_npz and in test_vol_h5 at once: {few(both)}; training on slices of a test "
            "case would leak, so the volume alone is taken"
        )
    for id in sorted(set(slices) - set(volumes)):
        numbered = slices[id]
        absent = [str(n) for n in range(max(numbered) + 1) if n not in numbered]
        if absent:
            missing.append(f"{id}: no slice {few(absent)}")
        paths = tuple(numbered[n] for n in sorted(numbered))
        items.append(Item(id, paths, partial(_read_slices, numbered, id)))
    for part, there in (("train_npz", slices), ("test_vol_h5", volumes)):
        if not there:
            missing.append(f"no cases in {part}")
    return items, missing, warnings


def _read_slices(numbered: Mapping[int, Path], id: str) -> Case:
    read = {number: read_case(path) for number, path in numbered.items()}
    return join_slices(read, numbered, id, id)
