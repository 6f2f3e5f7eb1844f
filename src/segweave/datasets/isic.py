"""ISIC 2016, 2017 and 2018, the lesion segmentation tasks of three dermoscopy challenges."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from segweave.data.splits import mark_leaking
from segweave.datasets._pairs import Pair, PairFolders, find_pairs, pair_folders
from segweave.datasets._pictures import (
    Splits,
    common_splits,
    provenance_of,
    read_groups,
    short_parts,
    single_item,
    target_of,
)
from segweave.datasets.base import Plan, choose_layout
from segweave.registry import DatasetCard

CARDS = (
    DatasetCard(
        name="isic2016",
        title="ISIC 2016 task 1, lesion boundaries in dermoscopic images",
        entry="plan",
        paper="Gutman, Codella, Celebi, Helba, Marchetti, Mishra, Halpern, Skin Lesion Analysis "
        "toward Melanoma Detection, 2016, arXiv 1605.01397",
        licence="see the challenge's terms",
        options={"year": 2016},
        stack="single",
        kind="binary",
        classes=("background", "lesion"),
        expected={"cases": 1279},
        terms="The paper must be cited.",
    ),
    DatasetCard(
        name="isic2017",
        title="ISIC 2017 task 1, lesion boundaries in dermoscopic images",
        entry="plan",
        paper="Codella, Gutman, Celebi, Helba, Marchetti, Dusza, Kalloo, Liopyris, Mishra, "
        "Kittler, Halpern, Skin Lesion Analysis toward Melanoma Detection, ISBI 2018, arXiv "
        "1710.05006",
        licence="see the challenge's terms",
        options={"year": 2017},
        stack="single",
        kind="binary",
        classes=("background", "lesion"),
        expected={"cases": 2750},
        terms="The paper must be cited.",
    ),
    DatasetCard(
        name="isic2018",
        title="ISIC 2018 task 1, lesion boundaries in dermoscopic images",
        entry="plan",
        paper="Codella, Rotemberg, Tschandl et al., Skin Lesion Analysis Toward Melanoma Detection "
        "2018, arXiv 1902.03368; Tschandl, Rosendahl, Kittler, The HAM10000 dataset, Scientific "
        "Data 5, 2018, doi 10.1038/sdata.2018.161",
        licence="CC BY-NC 4.0 (images of HAM10000)",
        options={"year": 2018},
        stack="single",
        kind="binary",
        classes=("background", "lesion"),
        expected={"cases": 3694},
        terms="Non-commercial use; the papers must be cited.",
    ),
)

_NAME, _MASK = r"(ISIC_\d{7})", r"(ISIC_\d{7})(?i:_segmentation)?"
# Part → how many images, the release's folder of images, its folder of masks.
_RELEASES = {
    2016: {
        "train": (
            900,
            "ISBI2016_ISIC_Part1_Training_Data",
            "ISBI2016_ISIC_Part1_Training_GroundTruth",
        ),
        "test": (379, "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
    },
    2017: {
        "train": (2000, "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        "valid": (150, "ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        "test": (600, "ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    },
    2018: {
        "train": (2594, "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        "valid": (
            100,
            "ISIC2018_Task1-2_Validation_Input",
            "ISIC2018_Task1_Validation_GroundTruth",
        ),
        "test": (1000, "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    },
}
_SORTED = (
    "sorted-1815-259-520: the 2594 training images of 2018 in the order of their names, the first "
    "1815 to train on, 259 to validate, 520 to test, as the preparation script of BCDU-Net's "
    "authors (Azad et al. 2019) cuts them, which listed the files in the order of the disk"
)


def plan(
    source: Path,
    *,
    year: int,
    layout: Literal["auto", "release", "parts", "pairs"] = "auto",
    groups: str | Path | None = None,
) -> Plan:
    """Find the lesion segmentation task of ISIC 2016, 2017 or 2018.

    `release` is the challenge's own folders, of training, validation and test, those that are
    there; `parts` is train, val (or valid) and test, each with images and masks; `pairs` is images
    and masks. Images are ISIC_NNNNNNN.jpg, masks ISIC_NNNNNNN_segmentation.png (or without the
    ending). Splits: `official` (by folder), `seed-0` and `fold-0` to `fold-4` (of the training
    images, by group), for 2018 `sorted-1815-259-520`; where a group is in two parts of a published
    one, its name ends in `-leaks`.

    Args:
        source: The folder that holds the data set.
        year: 2016, 2017 or 2018.
        layout: The layout of the source; auto recognises it.
        groups: A CSV table (image_id, lesion_id or patient_id), such as the metadata of HAM10000;
            without it every image is its own group.

    Raises InputError where no layout fits, UsageError where several do.
    """
    known = _RELEASES[year]
    finders = {
        "release": lambda folder: [
            folders
            for part, (_, images, masks) in known.items()
            for folders in _folders_of(folder, (images,), (masks,), part)
        ],
        "parts": _parts,
        "pairs": lambda folder: _folders_of(folder, ("images", "image"), ("masks", "mask"), ""),
    }
    expected = f"folders {next(iter(known.values()))[1]} and so on, or images and masks"
    name, where = choose_layout(f"ISIC {year}", source, layout, finders, expected)
    pairs, left_out, errors = find_pairs(where)
    missing: list[str] = []
    home, warnings = read_groups(groups, [pair.id for pair in pairs])
    if name == "release":
        found = Counter(pair.part for pair in pairs)
        missing += short_parts({part: count for part, (count, _, _) in known.items()}, found)
    splits, leaking = _splits(year, pairs, home)
    return Plan(
        layout=name,
        target=target_of(CARDS[year - 2016]),
        items=[
            single_item(pair, home[pair.id], {"part": pair.part} if pair.part else None)
            for pair in pairs
        ],
        splits=lambda there: splits,
        missing=missing,
        warnings=[*warnings, *leaking],
        grouped=groups is not None,
        errors=errors,
        left_out=left_out,
        provenance=provenance_of(
            CARDS[year - 2016], **({"other": _SORTED} if year == 2018 else {})
        ),
    )


def _folders_of(
    root: Path, images: tuple[str, ...], masks: tuple[str, ...], part: str
) -> list[PairFolders]:
    return pair_folders([root], images, masks, image=_NAME, mask=_MASK, part=part)


def _parts(source: Path) -> list[PairFolders]:
    found: list[PairFolders] = []
    for folder, part in (
        ("train", "train"),
        ("val", "valid"),
        ("valid", "valid"),
        ("test", "test"),
    ):
        root = source / folder
        if root.is_dir():
            found += _folders_of(root, ("images", "image"), ("masks", "mask"), part)
    return found


def _splits(year: int, pairs: list[Pair], home: dict[str, str]) -> tuple[Splits, list[str]]:
    """The published splits, those of this project, and warnings about them."""
    published: Splits = {}
    parts = {
        part: [pair.id for pair in pairs if pair.part == part]
        for part in ("train", "valid", "test")
    }
    if sum(bool(ids) for ids in parts.values()) > 1:
        published["official"] = parts
    training = [pair.id for pair in pairs if pair.part in ("", "train")]
    if year == 2018 and len(training) == _RELEASES[2018]["train"][0]:
        ordered = sorted(training)
        cut = {"train": ordered[:1815], "valid": ordered[1815:2074], "test": ordered[2074:]}
        published["sorted-1815-259-520"] = cut
    splits, warnings = mark_leaking(published, home)
    if training:
        splits |= common_splits({id: home[id] for id in training})
    return splits, warnings
