"""What the polyp sets share: the layout of PraNet's benchmark, tables of video sequences, and the
random splits of frames that papers used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from segweave.data.splits import LEAKS
from segweave.data.splits.folds import stratified_split
from segweave.datasets._groups import read_rows
from segweave.datasets._pairs import FolderFinder, Pair, PairFolders, find_pairs, pair_folders
from segweave.datasets._pairs import subfolder as sub
from segweave.datasets._pictures import (
    FRACTIONS,
    common_splits,
    provenance_of,
    read_groups,
    single_item,
    target_of,
    video_items,
)
from segweave.datasets.base import Item, Plan, choose_layout
from segweave.errors import InputError
from segweave.registry import DatasetCard
from segweave.words import few

IMAGES, MASKS = ("images", "image"), ("masks", "mask")
NUMBER = r"0*(\d+)"
Spans = dict[str, tuple[int, int]]

FCBFORMER = (
    "fcbformer: as FCBFormer's released code draws it (80 : 10 : 10, random state 42, from the "
    "sorted list of files)"
)


def pranet_folders(
    source: Path, test: Sequence[str], train: str | None = None
) -> list[PairFolders]:
    """The folders of one set in the benchmark as PraNet's authors packed it: TrainDataset with
    image(s) and mask(s), of which `train` is the pattern of this set's names, and TestDataset with
    a folder a set, called one of `test`.
    """
    training, testing = sub(source, "TrainDataset"), sub(source, "TestDataset")
    found: list[PairFolders] = []
    if train is not None:
        found += pair_folders([training], IMAGES, MASKS, image=train, mask=train, part="train")
    if testing is not None:
        found += pair_folders([sub(testing, *test)], IMAGES, MASKS, part="test")
    return found


def plain_folders(source: Path, image: str = "(.+)") -> list[PairFolders]:
    """A folder images and a folder masks with the same names."""
    return pair_folders([source], IMAGES, MASKS, image=image, mask=image)


def read_sequences(path: str | Path) -> Spans:
    """Sequence → (first, last frame) from a CSV table with the columns sequence, first_frame and
    last_frame; raises InputError where it can't be read or sequences overlap.
    """
    doing, file = "reading a table of sequences", Path(path)
    columns = "the columns sequence, first_frame and last_frame, frames as integers"
    rows = read_rows(file, doing, columns)
    try:
        spans = {
            _sequence(row["sequence"]): (int(row["first_frame"]), int(row["last_frame"]))
            for row in rows
        }
    except (KeyError, ValueError) as error:
        raise InputError(
            doing,
            file=file,
            expected=columns,
            found=f"{type(error).__name__}: {error}",
            kind="layout",
        ) from error
    ordered = sorted(spans.items(), key=lambda item: item[1])
    for (name, (first, last)), (other, (start, _)) in pairwise(ordered):
        if start <= last:
            raise InputError(
                doing,
                file=file,
                expected="no overlap",
                found=f"{name} and {other} overlap",
                kind="layout",
            )
        if last < first:
            raise InputError(doing, file=file, found=f"{name} ends before it begins", kind="layout")
    return dict(ordered)


def _sequence(name: str) -> str:
    return f"sequence_{int(name):02d}" if name.strip().isdigit() else name.strip()


def videos(
    pairs: Sequence[Pair], spans: Spans
) -> tuple[dict[str, dict[int, Pair]], list[str], list[str]]:
    """Sequence → frame → pair, what is missing of the sequences, and warnings."""
    found: dict[str, dict[int, Pair]] = {}
    outside: list[str] = []
    for pair in pairs:
        number = int(pair.id) if pair.id.isdigit() else -1
        home = next((s for s, (first, last) in spans.items() if first <= number <= last), None)
        if home is None:
            outside.append(pair.id)
        else:
            found.setdefault(home, {})[number] = pair
    absent = [name for name in spans if name not in found]
    short = [
        f"{name} ({len(found[name])} of {last - first + 1} frames)"
        for name, (first, last) in spans.items()
        if name in found and len(found[name]) < last - first + 1
    ]
    missing, warnings = [], []
    if absent:
        missing.append(f"{len(absent)} sequences are not there: {few(absent)}")
    if short:
        missing.append(
            f"{len(short)} sequences are not whole, and windows do not reach across what is "
            f"absent: {few(short)}"
        )
    if outside:
        missing.append(
            f"{len(outside)} frames belong to no sequence and are left out: {few(outside)}"
        )
    changed = [name for name, frames in found.items() if len({p.size for p in frames.values()}) > 1]
    if changed:
        warnings.append(
            f"the frames of {few(changed)} change their size: a case for each uninterrupted run"
        )
    return {name: found[name] for name in spans if name in found}, missing, warnings


def plan_stills(
    card: DatasetCard,
    source: Path,
    layout: str,
    finders: Mapping[str, FolderFinder],
    expected: str,
    sequences: str | Path | None = None,
    groups: str | Path | None = None,
    *,
    by_image: bool = False,
) -> Plan:
    """The plan of a set that papers mostly test on, and whose sequences the release does not name.

    With a table of `sequences` each becomes a video, else each frame is a case (its group from the
    table `groups`, if given). Splits: `test-only` (all of it); by group where groups are known;
    where frames are cases and `by_image`, `seed-0-leaks`, a draw as papers train on them.
    """
    name, where = choose_layout(card.title, source, layout, finders, expected)
    pairs, left_out, errors = find_pairs(where)
    missing: list[str] = []
    warnings: list[str] = []
    known = sequences is not None or groups is not None
    items: list[Item]
    if sequences is not None:
        found, absent, warnings = videos(pairs, read_sequences(sequences))
        missing += absent
        items = [item for video, frames in found.items() for item in video_items(video, frames)]
        home = {
            item.id: video for video, frames in found.items() for item in video_items(video, frames)
        }
        weights = {video: float(len(frames)) for video, frames in found.items()}
    else:
        home, weights = read_groups(groups, [pair.id for pair in pairs])[0], {}
        items = [single_item(pair, home[pair.id]) for pair in pairs]
        if not known:
            warnings.append(
                "the release does not say which frames are of one video: each counts as its own "
                "group, which makes intervals too narrow; give a table if you know (sequences)"
            )
    splits = {"test-only": {"train": [], "valid": [], "test": [item.id for item in items]}}
    if known:
        splits |= common_splits(home, weights=weights)
    if by_image and sequences is None:
        single = {item.id: item.id for item in items}
        splits[f"seed-0{LEAKS}"] = stratified_split(single, FRACTIONS, 0)
    return Plan(
        layout=name,
        target=target_of(card),
        items=items,
        splits=lambda there: splits,
        missing=missing,
        warnings=warnings,
        grouped=known,
        errors=errors,
        left_out=left_out,
        provenance=provenance_of(card),
    )


def frame_finders(release: FolderFinder, names: Sequence[str]) -> dict[str, FolderFinder]:
    """The layouts of a set whose frames are numbered: its `release`, `pairs` (images and masks) and
    `pranet` (TestDataset with a folder called one of `names`).
    """
    return {
        "release": release,
        "pairs": lambda folder: plain_folders(folder, NUMBER),
        "pranet": lambda folder: pranet_folders(folder, names),
    }


def fcbformer_split(names: Sequence[str]) -> dict[str, list[str]]:
    """The random 80 : 10 : 10 of FCBFormer's released code: from the names in the order of their
    text, a tenth for testing and as many for validation, each by scikit-learn's shuffle with random
    state 42 (which is a permutation of NumPy's legacy generator, its beginning held out).
    """
    ordered = sorted(names)
    count = round(0.1 * len(ordered))

    def deal(some: Sequence[str]) -> tuple[list[str], list[str]]:
        # The legacy generator is what the published split was drawn with.
        order = np.random.RandomState(42).permutation(len(some))
        return [some[i] for i in order[count:]], [some[i] for i in order[:count]]

    rest, test = deal(ordered)
    train, valid = deal(rest)
    return {"train": train, "valid": valid, "test": test}
