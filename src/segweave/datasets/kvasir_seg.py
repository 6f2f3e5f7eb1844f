"""Kvasir-SEG, 1000 single images of polyps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segweave.datasets._pairs import PairFolders, find_pairs, pair_folders, subfolder
from segweave.datasets._pictures import (
    common_splits,
    provenance_of,
    read_groups,
    single_item,
    target_of,
)
from segweave.datasets._polyps import FCBFORMER, IMAGES, MASKS, fcbformer_split, pranet_folders
from segweave.datasets.base import Plan, choose_layout
from segweave.formats import case_name
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="kvasir-seg",
    title="Kvasir-SEG, polyps in single endoscopic images",
    entry="plan",
    paper="Jha, Smedsrud, Riegler, Halvorsen, de Lange, Johansen, Johansen, Kvasir-SEG: A "
    "Segmented Polyp Dataset, MultiMedia Modeling 2020, doi 10.1007/978-3-030-37734-2_37",
    licence="research and education",
    stack="single",
    kind="binary",
    classes=("background", "polyp"),
    expected={"cases": 1000},
    terms="The paper must be cited.",
    generic_layouts=("release",),
)

# TrainDataset also holds frames of CVC-ClinicDB, whose names are numbers.
_NOT_A_NUMBER = r"(?!\d+$)(.+)"


def plan(
    source: Path,
    *,
    layout: Literal["auto", "release", "pranet"] = "auto",
    groups: str | Path | None = None,
) -> Plan:
    """Find Kvasir-SEG: `release` (images and masks, here or below Kvasir-SEG) or `pranet`
    (TrainDataset, whose names of digits alone are another set's, and TestDataset/Kvasir).

    Splits: `seed-0`, `fold-0` to `fold-4`, by group; `fcbformer` (the whole set, every image its
    own group), `pranet` (by folder), `train-val` (where train.txt and val.txt of the authors are
    beside the images).

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        groups: A CSV table (image, group) that says which images show the same patient; the release
            does not.

    Raises InputError where no layout fits, UsageError where several do.
    """
    finders = {
        "release": lambda folder: pair_folders(
            [folder, subfolder(folder, "Kvasir-SEG")], IMAGES, MASKS
        ),
        "pranet": lambda folder: pranet_folders(folder, ["Kvasir", "Kvasir-SEG"], _NOT_A_NUMBER),
    }
    expected = "folders images and masks, or TrainDataset and TestDataset/Kvasir"
    name, where = choose_layout("Kvasir-SEG", source, layout, finders, expected)
    pairs, left_out, errors = find_pairs(where)
    missing: list[str] = []
    ids = [pair.id for pair in pairs]
    home, warnings = read_groups(groups, ids)
    splits = common_splits(home)
    if groups is None and len(ids) == CARD.expected["cases"]:
        splits["fcbformer"] = fcbformer_split(ids)
    parts = {pair.id: pair.part for pair in pairs}
    if groups is None and set(parts.values()) >= {"train", "test"}:
        splits["pranet"] = {
            "train": [id for id in ids if parts[id] == "train"],
            "valid": [],
            "test": [id for id in ids if parts[id] == "test"],
        }
    if groups is None and name == "release":
        lists, unknown = _lists(where[0], set(ids))
        splits |= lists
        if unknown:
            missing.append(f"train.txt and val.txt name images that are absent: {few(unknown)}")
    return Plan(
        layout=name,
        target=target_of(CARD),
        items=[single_item(pair, home[pair.id]) for pair in pairs],
        splits=lambda there: splits,
        missing=missing,
        warnings=warnings,
        grouped=groups is not None,
        errors=errors,
        left_out=left_out,
        provenance=provenance_of(CARD, other=FCBFORMER),
    )


def _lists(
    folders: PairFolders, ids: set[str]
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """The split of the authors' own lists, and names in them that are not there."""
    named: dict[str, list[str]] = {}
    for part, file in (("train", "train.txt"), ("valid", "val.txt")):
        path = folders.images.parent / file
        if not path.is_file():
            return {}, []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        named[part] = [case_name(Path(line.split()[0]).name) for line in lines if line.strip()]
    unknown = sorted({id for some in named.values() for id in some} - ids)
    kept = {part: [id for id in some if id in ids] for part, some in named.items()}
    if set(kept["train"]) & set(kept["valid"]) or not all(kept.values()):
        return {}, unknown
    return {"train-val": {**kept, "test": []}}, unknown
