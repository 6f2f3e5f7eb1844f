"""What data sets of pictures share: masks of any kind, single images and videos as cases, groups
from a table, and the splits that every set offers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave import __version__
from segweave.data.case import Case, Provenance
from segweave.data.specs import TargetSpec
from segweave.data.splits.folds import stratified_split, usual_folds
from segweave.datasets._groups import read_rows, rows_by_case
from segweave.datasets._pairs import Pair
from segweave.datasets.base import Item
from segweave.errors import InputError
from segweave.formats import read_array, read_case
from segweave.formats.content import Request
from segweave.formats.pictures import check_black_is_zero, is_grey, two_values
from segweave.formats.read import read_content
from segweave.registry import DatasetCard
from segweave.storage import sha256_of, sha256_of_text
from segweave.words import few

FRACTIONS = (0.7, 0.1, 0.2)
Splits = dict[str, dict[str, list[str]]]

_CASE_COLUMNS = ("case", "image", "image_id", "isic_id", "name")
_GROUP_COLUMNS = ("group", "patient", "patient_id", "patient ID", "lesion_id", "lesion", "video")


def target_of(card: DatasetCard) -> TargetSpec:
    """Background and the one class of a card."""
    return TargetSpec(kind="binary", names=card.classes)


def provenance_of(card: DatasetCard, **more: Any) -> dict[str, Any]:
    """The source of a data set, for a store's manifest."""
    return {"paper": card.paper, "licence": card.licence, "terms": card.terms, **more}


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask of any kind → 0 and 1 (height, width): 1-bit, 0 and 1, or 0 and 255, where whatever
    is above the middle is foreground (noise of JPEG, soft edges).

    Raises InputError for colours (of a palette the indices count), and for grey that is more than
    the noise and the soft edges of two values: areas of one grey, or a large share of greys. A TIFF
    whose 0 is white is refused too: programs disagree about what is foreground then.
    """
    doing = "reading a mask"
    if path.suffix.lower() in (".tif", ".tiff"):
        check_black_is_zero(path, doing)
    content = read_content(path, Request(doing))
    assert content.image is not None
    values = content.image[0]
    grey: NDArray[Any] = values.max(axis=0)
    if len(values) > 1 and not is_grey(values):
        # Of a palette the indices are the ids; any other colours are refused.
        label = read_content(path, Request(doing, as_label=True)).label
        assert label is not None
        grey = label[0]
    return two_values(grey, path, doing, lossy=content.lossy)


def single_item(
    pair: Pair, group: str | None = None, attributes: Mapping[str, Any] | None = None
) -> Item:
    """One image as a case."""
    group = pair.id if group is None else group
    read = partial(_read_single, pair, group, dict(attributes or {}))
    return Item(pair.id, (pair.image, pair.mask), read, parts_of(pair), group)


def parts_of(pair: Pair) -> tuple[tuple[Path, Callable[[], object]], ...]:
    """The image and the mask, each to be read separately."""
    return (
        (pair.image, partial(read_array, pair.image)),
        (pair.mask, partial(read_mask, pair.mask)),
    )


def _read_single(pair: Pair, group: str, attributes: dict[str, Any]) -> Case:
    case = read_case(pair.image, id=pair.id, group=group, stack="single", with_label=False)
    label = read_mask(pair.mask)[None]
    return replace(case, label=label, attributes={**case.attributes, **attributes})


def video_items(video: str, frames: Mapping[int, Pair]) -> list[Item]:
    """A video (frame number → pair) as one case; as several where its frames change their size,
    all of one group. Windows do not reach across frames that are absent.
    """
    runs: list[list[int]] = []
    for number in sorted(frames):
        if runs and frames[runs[-1][-1]].size == frames[number].size:
            runs[-1].append(number)
        else:
            runs.append([number])
    items = []
    for order, numbers in enumerate(runs, start=1):
        id = video if len(runs) == 1 else f"{video}_part{order}"
        some = {number: frames[number] for number in numbers}
        files = tuple(path for pair in some.values() for path in (pair.image, pair.mask))
        parts = tuple(part for pair in some.values() for part in parts_of(pair))
        items.append(Item(id, files, partial(_read_video, id, video, some), parts, video))
    return items


def _read_video(id: str, group: str, frames: Mapping[int, Pair]) -> Case:
    numbers = sorted(frames)
    images = [read_array(frames[number].image)[0] for number in numbers]
    channels = max(len(image) for image in images)
    for number, image in zip(numbers, images, strict=True):
        if len(image) not in (1, channels):
            raise InputError(
                f"joining the frames of {id}",
                file=frames[number].image,
                expected=f"{channels} channels, or grey",
                found=f"{len(image)} channels",
                kind="unsupported",
            )
    digest = sha256_of_text("".join(sha256_of(frames[n].image) for n in numbers))
    folder = frames[numbers[0]].image.parent
    return Case(
        id=id,
        group=group,
        image=np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images]),
        label=np.stack([read_mask(frames[number].mask) for number in numbers]),
        stack="time",
        gaps=tuple(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1),
        provenance=Provenance(str(folder), digest, f"segweave {__version__}"),
        attributes={"frames": numbers},
    )


def read_groups(path: str | Path | None, ids: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The group of each id from a CSV table (none: every image its own), and warnings.

    The image's column is case, image, image_id or isic_id; the group's is group, patient_id,
    lesion_id or video. Raises InputError where the columns or an image's row are not there.
    """
    if path is None:
        return {id: id for id in ids}, [
            "every image is its own group: if you know which show the same patient or lesion, "
            "give the option groups"
        ]
    doing, file = "reading a table of groups", Path(path)
    rows = read_rows(file, doing)
    columns = list(rows[0]) if rows else []
    case = next((name for name in _CASE_COLUMNS if name in columns), None)
    group = next((name for name in _GROUP_COLUMNS if name in columns), None)
    if case is None or group is None:
        raise InputError(
            doing,
            file=file,
            expected=f"one of the columns {', '.join(_CASE_COLUMNS)} and one of "
            f"{', '.join(_GROUP_COLUMNS)}",
            found=", ".join(columns) or "no rows",
            kind="layout",
        )
    cells = rows_by_case(rows, case, [group], doing=doing, file=file)
    table = {id: row[group] for id, row in cells.items()}
    absent = [id for id in ids if not table.get(id)]
    if absent:
        raise InputError(
            doing,
            file=file,
            expected="a group for each image",
            found=f"none for {len(absent)}: {few(absent)}",
            kind="layout",
        )
    return {id: table[id] for id in ids}, []


def common_splits(
    groups: Mapping[str, str],
    *,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    together: Mapping[str, str] | None = None,
    fixed: bool = True,
) -> Splits:
    """What every set offers: `seed-0` (70 : 10 : 20, if `fixed`) and `fold-0` to `fold-4`, by
    group. With fewer blocks of groups than folds there are fewer folds, below three none.
    """
    splits: Splits = {}
    if fixed:
        splits[f"seed-{seed}"] = stratified_split(groups, FRACTIONS, seed, strata=strata)
    splits |= usual_folds(groups, seed, strata=strata, weights=weights, together=together)
    return splits


def short_parts(parts: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """What is missing of the expected number of images per part."""
    return [
        f"{part}: {wanted} images are expected, {found.get(part, 0)} are there"
        for part, wanted in parts.items()
        if found.get(part, 0) != wanted
    ]
