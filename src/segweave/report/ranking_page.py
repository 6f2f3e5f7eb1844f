"""The page of a ranking: the first cases as pictures with their uncertainty, and the whole list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import MissingExtraError
from segweave.prediction.overlay import display_slices, draw_slice
from segweave.report.figures import as_png, figure_class
from segweave.report.page import Image, Page, Section, Table, write_page
from segweave.words import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 500


@dataclass(frozen=True)
class RankedPicture:
    """What is drawn of a case.

    Attributes:
        name: its id.
        case: its image.
        labels: the predicted labels of one slice, (height, width), with a class axis in front where
            classes overlap.
        uncertainty: of that slice, (height, width), 0 to 1.
        slice: the slice, counted from 0.
        score: the case's score.
    """

    name: str
    case: Case
    labels: NDArray[np.uint8]
    uncertainty: NDArray[np.float32]
    slice: int
    score: float


def write_ranking(
    path: Path,
    pictures: Iterable[RankedPicture],
    rows: Sequence[Sequence[str]],
    target: TargetSpec,
    about: Mapping[str, Any],
) -> Path | None:
    """Write the page; returns None where the libraries that draw it are missing.

    Args:
        path: the file.
        pictures: the first cases, in their order; one is in memory at a time.
        rows: rank, case, score, slice, region and distance of every case.
        target: the classes.
        about: how the list was made.
    """
    try:
        images = [
            Image(as_png(uncertainty_figure(one, target)), _caption(number, one))
            for number, one in enumerate(pictures, start=1)
        ]
        columns = ("rank", "case", "score", "slice", "region", "distance")
        more = [f"The first {_LISTED} of {len(rows)} cases."] if len(rows) > _LISTED else []
        sections = [
            Section(
                "To label first",
                [
                    "Image, prediction, and uncertainty from 0 (dark) to 1 (bright), in the slice "
                    "of the case that is most uncertain near the predicted boundaries."
                ],
                images=images,
            ),
            Section("All cases, in their order", more, [Table(columns, rows[:_LISTED])]),
        ]
        facts = [
            (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for name, value in about.items()
            if value is not None
        ]
        page = Page(
            "Cases in the order in which to label them",
            sections,
            warning="Research software, not a medical device.",
            facts=facts,
        )
        return write_page(page, path)
    except MissingExtraError:
        return None


def uncertainty_figure(one: RankedPicture, target: TargetSpec) -> Figure:
    """One slice: the image, the predicted labels over it, and the uncertainty with its scale."""
    figure = figure_class()(figsize=(9.0, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    pixels = next(p for number, p in enumerate(display_slices(one.case)) if number == one.slice)
    spacing = None if one.case.spacing is None else one.case.spacing[1:]
    rows, columns = spacing or (1.0, 1.0)
    axes[0].imshow(np.asarray(draw_slice(pixels, None, target, spacing=spacing)))
    axes[1].imshow(np.asarray(draw_slice(pixels, one.labels, target, spacing=spacing)))
    drawn = axes[2].imshow(
        one.uncertainty, cmap="inferno", vmin=0, vmax=1, aspect=rows / columns, interpolation="none"
    )
    for axis, name in zip(axes, ("image", "prediction", "uncertainty"), strict=True):
        axis.set_title(name, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(drawn, ax=axes[2], fraction=0.046)
    bar.ax.tick_params(labelsize=8)
    return figure


def _caption(number: int, one: RankedPicture) -> str:
    where = f", slice {one.slice + 1} of {one.case.slices}" if one.case.slices > 1 else ""
    return f"{number}. {printable(one.name)}{where}: score {one.score:.4f}"
