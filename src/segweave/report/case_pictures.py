"""The cases that a report shows as pictures: the best, the median and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import SegweaveError, one_line
from segweave.evaluation import Row
from segweave.evaluation.summary import case_values
from segweave.report.figures import Panel, as_png, prediction_panel
from segweave.report.page import Image, Section
from segweave.report.panels import panel_of

TITLE = "Cases worst, median and best"


class Pictured(Protocol):
    """What gives the cases and their predictions."""

    @property
    def seen(self) -> bool:
        """Whether there are images, and not label maps alone."""

    def case(self, id: str) -> Case:
        """The case with its true label map."""

    def prediction(self, case: Case) -> NDArray[Any]:
        """The label map, or the image, that was scored."""


def values_by_case(rows: Sequence[Row], metric: str = "dice") -> dict[str, float]:
    """Case → mean over its classes (of the mean over images and runs)."""
    values: dict[str, list[float]] = {}
    for (case, _), value in case_values(rows, metric).items():
        values.setdefault(case, []).append(value)
    return {case: float(np.mean(of_case)) for case, of_case in values.items()}


def notable(values: Mapping[str, float]) -> dict[str, str]:
    """Case → why it is shown: the worst, the median and the best, as far as they differ."""
    order = sorted(values, key=lambda case: (values[case], case))
    if not order:
        return {}
    if len({*values.values()}) == 1:
        # Where all are equal, none is the best.
        return {order[0]: "one of equal cases" if len(order) > 1 else "the only case"}
    chosen: dict[str, list[str]] = {}
    for word, index in (("worst", 0), ("median", (len(order) - 1) // 2), ("best", -1)):
        chosen.setdefault(order[index], []).append(word)
    return {case: " and ".join(words) for case, words in chosen.items()}


def pictures(
    values: Mapping[str, float],
    cases: Pictured,
    target: TargetSpec,
    *,
    protocol: str = "clean",
    title: str = TITLE,
    quantity: str = "Dice",
) -> Section:
    """The section with image, truth and prediction of the notable cases. A picture that can't be
    drawn is a line with the reason.

    Args:
        values: case → what arms are compared by.
        cases: the cases and their predictions.
        target: the classes.
        protocol: its name.
        title: the heading.
        quantity: the name of the values.
    """
    rows: list[Panel] = []
    lines: list[str] = []
    for id, why in notable(values).items():
        line = f"{id}: {why}, {quantity} {values[id]:.3f}"
        try:
            case = cases.case(id)
            predictions = {"prediction": cases.prediction(case)}
            panel = panel_of(case, predictions, target, protocol=protocol)
        except (SegweaveError, OSError) as error:
            reason = one_line(error) if isinstance(error, SegweaveError) else str(error)
            lines.append(f"{line}. No picture: {reason}.")
            continue
        if panel is None:
            lines.append(f"{line}. No picture: its classes overlap.")
            continue
        title_of_row = f"{why}\n{panel.title}"
        rows.append(replace(panel, seen=cases.seen, title=title_of_row))
        lines.append(f"{line}.")
    if not rows:
        return Section(title, lines or [f"No case has a value of {quantity}."])
    which = "the middle slice; below, its"
    if target.task == "labels":
        which = "the slice in which the rarest class is largest; below, mean"
    caption = (
        f"One row per case, {which} {quantity}{' of that slice' * (target.task == 'labels')}."
        + ("" if cases.seen else " Without images the label maps are drawn on black.")
    )
    return Section(title, lines, images=[Image(as_png(prediction_panel(rows, target)), caption)])


def target_of(kind: str, classes: Sequence[str]) -> TargetSpec:
    """The target with these foreground classes, in the standard colours."""
    hidden = () if kind == "overlapping" else ("background",)
    if kind == "image":
        return TargetSpec(kind="image", names=tuple(classes), range=(0.0, 1.0))
    return TargetSpec.model_validate({"kind": kind, "names": (*hidden, *classes)})
