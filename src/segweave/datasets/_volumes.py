"""What data sets of volumes share: joining channels and slices, groups, classes and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, Stack, farthest_apart
from segweave.data.specs import TargetSpec
from segweave.data.splits import PARTS, cases_of, seeded_split
from segweave.data.splits.folds import usual_folds
from segweave.datasets.base import Splitter
from segweave.errors import InputError
from segweave.formats import Geometry, read_case, read_label
from segweave.words import few


def read_volume(
    images: Sequence[Path],
    label: Path | None,
    *,
    id: str,
    group: str,
    geometry: Geometry = "check",
    channels: bool = False,
    stack: Stack | None = None,
    scaled: bool = True,
) -> Case:
    """A case from one file per channel (all on the same voxels) and a label map, `scaled` as
    `read_label` does.

    Raises InputError where a channel has another size or position than the first.
    """
    first = read_case(
        images[0], id=id, group=group, geometry=geometry, channels=channels, stack=stack,
        with_label=label is None,
    )  # fmt: skip
    parts = [first.image]
    for path in images[1:]:
        other = read_case(path, geometry=geometry, channels=channels, with_label=False)
        _check_fits(first, other, images[0], path)
        parts.append(other.image)
    case = first if len(parts) == 1 else replace(first, image=np.concatenate(parts, axis=1))
    if label is None:
        return case
    return replace(case, label=read_label(label, case, geometry=geometry, scaled=scaled))


def _check_fits(first: Case, other: Case, path: Path, another: Path) -> None:
    doing = "joining the channels of an image"
    grid, other_grid = (first.slices, *first.size), (other.slices, *other.size)
    if grid != other_grid:
        raise InputError(
            doing,
            file=another,
            expected="the size of {}, {} × {} × {}".format(path.name, *grid),
            found="{} × {} × {}".format(*other_grid),
            remedy="resample it onto the first channel",
            kind="size",
        )
    if first.affine is not None and other.affine is not None:
        apart = farthest_apart(first.affine, other.affine, grid)
        if apart > 0.1 * min(first.spacing or (1.0,)):
            raise InputError(
                doing,
                file=another,
                expected=f"a channel on the same voxels as {path.name}",
                found=f"voxels up to {apart:.3g} mm away",
                remedy="resample it onto the first channel",
                kind="geometry",
            )


def join_slices(read: Mapping[int, Case], files: Mapping[int, Path], id: str, group: str) -> Case:
    """Numbered slices, each a case, as one case; where numbers are left out, windows
    are interrupted. Raises InputError where one has another size.
    """
    numbers = sorted(read)
    first = read[numbers[0]]
    for number in numbers:
        if read[number].image.shape != first.image.shape:
            raise InputError(
                f"joining the slices of {id}",
                file=files[number],
                expected=f"{first.size[0]} × {first.size[1]} as in slice {numbers[0]}",
                found="{} × {}".format(*read[number].size),
                kind="size",
            )
    return Case(
        id=id,
        group=group,
        image=np.concatenate([read[number].image for number in numbers]),
        label=np.concatenate([labelled(read[n], files[n]) for n in numbers]),
        stack="space",
        gaps=tuple(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1),
        provenance=first.provenance,
    )


def read_labelled(path: Path, *, id: str, group: str) -> Case:
    """A volume and its label from one file (h5, npz); raises InputError without a label."""
    case = read_case(path, id=id, group=group, stack="space")
    labelled(case, path)
    return case


def labelled(case: Case, path: Path) -> NDArray[np.uint8]:
    """The label of a case; raises InputError where there is none."""
    if case.label is None:
        raise InputError(
            "reading a labelled image",
            file=path,
            expected="an array named label",
            found="none",
            kind="missing",
        )
    return case.label


def remapped(label: NDArray[np.uint8], table: Mapping[int, int], known: int) -> NDArray[np.uint8]:
    """Released ids → the ids of this data set; ids up to `known` that are not in `table` become
    background, higher ones stay as they are, for the check of the case to name.
    """
    turn = np.arange(256, dtype=np.uint8)
    turn[: known + 1] = 0
    for old, new in table.items():
        turn[old] = new
    return turn[label]


def splits_by(
    fractions: Sequence[float], seed: int, held_out: Sequence[str] = (), more: Any = None
) -> Splitter:
    """Splits dealt out by groups; the groups of cases in `held_out` are the test part, where there
    are any. `more` are further splits, name → part → ids; without folds among them, the usual ones
    are drawn from all cases that are not held out.
    """

    def split(groups: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
        test = {groups[id] for id in held_out if id in groups}
        rest = [group for group in groups.values() if group not in test]
        if test:
            kept = 1 - fractions[2] if fractions[2] < 1 else 1.0
            shares = (fractions[0] / kept, fractions[1] / kept, 0.0)
            parts = {**seeded_split(rest, shares, seed), "test": sorted(test)}
        else:
            parts = seeded_split(rest, fractions, seed)
        found = {f"seed-{seed}": cases_of(parts, groups)}
        for name, wanted in (more or {}).items():
            found[name] = {
                part: [id for id in groups if id in set(wanted.get(part, ()))]
                for part in dict.fromkeys((*PARTS, *wanted))
            }
        if not any(name.startswith("fold-") for name in found):
            inside = {id: group for id, group in groups.items() if group not in test}
            found |= usual_folds(inside, seed)
        return found

    return split


def exclusive_target(names: Mapping[int, str], doing: str, file: Path) -> TargetSpec:
    """The target of class ids 0, 1, 2, ... Raises InputError where one is left out."""
    if sorted(names) != list(range(len(names))):
        raise InputError(
            doing,
            file=file,
            expected="class ids 0, 1, 2, ... without a gap",
            found=few([str(i) for i in sorted(names)]),
            kind="labels",
        )
    ordered = tuple(names[i] for i in range(len(names)))
    return TargetSpec(kind="exclusive", names=ordered)
