"""Measures label maps: for each class its volume or area, its largest diameter, and its objects."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.metrics.objects import connected_objects
from segweave.words import text_cells

COLUMNS = (
    "class",
    "label",
    "pixels",
    "volume_ml",
    "largest_area",
    "area_unit",
    "area_slice",
    "largest_diameter",
    "diameter_unit",
    "diameter_slice",
    "objects",
    "remark",
)
REMARK = "research software, not a medical device"
_SIDES = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])


@dataclass(frozen=True)
class Measurement:
    """What a label map holds of one class.

    Attributes:
        name: the class.
        label: its id in the label map.
        pixels: its pixels (voxels of a volume).
        volume_ml: its volume in ml; None unless the case is a volume of known spacing.
        largest_area: the largest area that it has in a slice, in mm² or px.
        area_slice: the slice of that area, from 1; None where the class is absent.
        largest_diameter: the greatest distance between two edges of one object within a slice, in
            mm or px (the longest diameter of RECIST, for every slice).
        diameter_slice: the slice of that diameter, from 1; None where the class is absent.
        objects: how many connected objects it has, in three dimensions where the case is a volume,
            else over all slices.
        in_mm: whether areas are in mm² and diameters in mm: the spacing is known.
    """

    name: str
    label: int
    pixels: int
    volume_ml: float | None
    largest_area: float
    area_slice: int | None
    largest_diameter: float
    diameter_slice: int | None
    objects: int
    in_mm: bool


def measure(case: Case, labels: NDArray[Any], target: TargetSpec) -> list[Measurement]:
    """Measure every foreground class of a label map.

    Args:
        case: the case, whose spacing makes millimetres of pixels.
        labels: (slices, height, width), or (slices, classes, height, width) where classes overlap.
        target: what the classes are.
    """
    found = []
    for label, name in target.foreground.items():
        masks = labels[:, label] > 0 if target.kind == "overlapping" else labels == label
        found.append(_of_class(name, label, masks, case))
    return found


def _of_class(name: str, label: int, masks: NDArray[np.bool_], case: Case) -> Measurement:
    spacing = case.spacing or (1.0, 1.0, 1.0)
    is_volume = case.stack == "space" and case.spacing is not None
    counts = masks.sum(axis=(1, 2))
    pixels = int(counts.sum())
    widest = [longest_diameter(one, spacing[1:]) for one in masks]
    at, longest = int(np.argmax(counts)), int(np.argmax(widest))
    stacks = [masks] if case.stack == "space" else [one[None] for one in masks]
    return Measurement(
        name=name,
        label=label,
        pixels=pixels,
        volume_ml=pixels * math.prod(spacing) / 1000 if is_volume else None,
        largest_area=float(counts[at]) * spacing[1] * spacing[2],
        area_slice=at + 1 if pixels else None,
        largest_diameter=widest[longest],
        diameter_slice=longest + 1 if pixels else None,
        objects=sum(int(connected_objects(one).max(initial=0)) for one in stacks),
        in_mm=case.spacing is not None,
    )


def longest_diameter(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> float:
    """The greatest distance between two edges of pixels of one connected object, in the unit of
    `spacing` (row, column); 0 for an empty mask. A line of n pixels is n pixels long.
    """
    objects = connected_objects(mask)
    longest = 0.0
    for number, box in enumerate(ndimage.find_objects(objects), start=1):
        inside = objects[box] == number
        surface = inside & ~ndimage.binary_erosion(inside)
        edges = (np.argwhere(surface)[:, None] + _SIDES).reshape(-1, 2) * np.asarray(spacing)
        try:
            corners = edges[ConvexHull(edges).vertices]
        except QhullError:
            corners = edges  # so flat that there is no hull
        longest = max(longest, float(pdist(corners).max(initial=0.0)))
    return longest


def as_csv(measurements: list[Measurement]) -> str:
    """The measurements as a CSV table, one row per class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in measurements:
        rows.writerow(
            text_cells(
                [
                    one.name,
                    one.label,
                    one.pixels,
                    None if one.volume_ml is None else round(one.volume_ml, 4),
                    round(one.largest_area, 2),
                    "mm²" if one.in_mm else "px",
                    one.area_slice,
                    round(one.largest_diameter, 2),
                    "mm" if one.in_mm else "px",
                    one.diameter_slice,
                    one.objects,
                    REMARK,
                ]
            )
        )
    return text.getvalue()
