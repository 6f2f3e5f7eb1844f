"""The cases that a report shows as pictures: the best, the median and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

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

    def prediction(self, case: Case) -> NDArray[np.uint8]:
        """The label map that was scored."""


def dice_by_case(rows: Sequence[Row]) -> dict[str, float]:
    """Case → mean over its classes (of the mean over images and runs)."""
    values: dict[str, list[float]] = {}
    for (case, _), value in case_values(rows, "dice").items():
        values.setdefault(case, []).append(value)
    return {case: float(np.mean(of_case)) for case, of_case in values.items()}


def notable(dice: Mapping[str, float]) -> dict[str, str]:
    """Case → why it is shown: the worst, the median and the best, as far as they differ."""
    order = sorted(dice, key=lambda case: (dice[case], case))
    if not order:
        return {}
    if len({*dice.values()}) == 1:
        # Where all are equal, none is the best.
        return {order[0]: "one of equal cases" if len(order) > 1 else "the only case"}
    chosen: dict[str, list[str]] = {}
    for word, index in (("worst", 0), ("median", (len(order) - 1) // 2), ("best", -1)):
        chosen.setdefault(order[index], []).append(word)
    return {case: " and ".join(words) for case, words in chosen.items()}


def pictures(
    dice: Mapping[str, float],
    cases: Pictured,
    target: TargetSpec,
    *,
    protocol: str = "clean",
    title: str = TITLE,
) -> Section:
    """The section with image, truth and prediction of the notable cases. A picture that can't be
    drawn is a line with the reason.

    Args:
        dice: case → Dice.
        cases: the cases and their predictions.
        target: the classes.
        protocol: its name.
        title: the heading.
    """
    rows: list[Panel] = []
    lines: list[str] = []
    for id, why in notable(dice).items():
        line = f"{id}: {why}, Dice {dice[id]:.3f}"
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
        return Section(title, lines or ["No case has a Dice."])
    caption = (
        "One row per case, the slice in which the rarest class is largest; below, mean Dice of "
        "that slice." + ("" if cases.seen else " Without images the label maps are drawn on black.")
    )
    return Section(title, lines, images=[Image(as_png(prediction_panel(rows, target)), caption)])


def target_of(kind: str, classes: Sequence[str]) -> TargetSpec:
    """The target with these foreground classes, in the standard colours."""
    hidden = () if kind == "overlapping" else ("background",)
    return TargetSpec.model_validate({"kind": kind, "names": (*hidden, *classes)})
