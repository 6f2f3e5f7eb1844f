"""Glands as the GlaS challenge scores them (object Dice, object F1, object Hausdorff distance), and
semantic Dice and IoU.

Sources: Sirinukunwattana et al., Medical Image Analysis 35, 2017, for the object scores; the
semantic ones are what later papers print beside them, of which no evaluation is released.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Stack
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.evaluation.label_pairs import Layer, foreground_name
from segweave.evaluation.protocols import Protocol, Score, Spacing, Status
from segweave.metrics import ObjectScores, confusion, connected_objects, object_scores

_PERFECT = {"object-dice": 1.0, "object-f1": 1.0, "object-hd": 0.0, "dice": 1.0, "iou": 1.0}


class _Glands(Protocol):
    def layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        name = foreground_name(self.name, target)
        truth = reference if instances is None else instances
        for what, given in (("prediction", prediction), ("reference", truth)):
            if given.shape != reference.shape or given.ndim != 3 or given.dtype.kind not in "bui":
                raise InputError(
                    "scoring a case",
                    expected=f"a {what} of ids (slices, height, width), as the reference has",
                    found=f"{given.dtype} {given.shape}, reference {reference.shape}",
                )
        if target.ignored is not None:
            kept = reference != target.ignored
            prediction, truth = np.where(kept, prediction, 0), np.where(kept, truth, 0)
        objects = instances is None
        pairs = [
            (_objects(ours, split=True), _objects(theirs, split=objects))
            for ours, theirs in zip(prediction, truth, strict=True)
        ]
        ours, theirs = (np.stack(side) for side in zip(*pairs, strict=True))
        return [Layer(ours, theirs, {1: name})]

    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, asked: tuple[str, ...]
    ) -> Iterator[Score]:
        (name,) = layer.names.values()
        for index in range(len(layer.reference)):
            ours, theirs = layer.prediction[index], layer.reference[index]
            found = object_scores(ours, theirs, None, distances="object-hd" in asked)
            counts = confusion(ours != 0, theirs != 0, (1,))[1]
            values = {
                "object-dice": found.dice,
                "object-f1": found.f1,
                "object-hd": found.hausdorff,
                "dice": counts.dice,
                "iou": counts.iou,
            }
            for metric in asked:
                unit = "px" if metric == "object-hd" else ""
                value, status = _by_rule(found, metric, values[metric])
                yield Score(index, name, metric, value, unit, status)


def _objects(labels: NDArray[Any], *, split: bool) -> NDArray[np.int32]:
    """A mask of 0 and 1 → its connected objects; a map of more ids holds one object an id."""
    if split and int(labels.max(initial=0)) <= 1:
        return connected_objects(labels)
    return labels.astype(np.int32)


def _by_rule(found: ObjectScores, metric: str, value: float) -> tuple[float | None, Status]:
    if found.predicted and found.present:
        return value, "scored"
    if not found.predicted and not found.present:
        return _PERFECT[metric], "rule"
    return (None, "failed") if metric == "object-hd" else (0.0, "rule")


glands: Protocol = _Glands(
    name="published-glas",
    title=(
        "as the GlaS challenge: each object against the one that it shares most with, weighted by "
        "area; an image without glands on both sides is perfect, on one side scores 0"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN) of the gland pixels of an image",
        "iou": "TP / (TP + FP + FN) of the gland pixels of an image",
        "object-dice": "object Dice: mean of both directions, objects weighted by area",
        "object-f1": "2·found / (predicted + present) objects; found = covered by more than half",
        "object-hd": (
            "object Hausdorff distance over all pixels of matched objects, in px; objects without "
            "a match take the nearest; failed where one side has no object"
        ),
    },
    means="over images, every image weighing alike",
    datasets=("glas",),
    sources=(
        "object scores, weights, matches: Sirinukunwattana et al. 2017",
        "more than half (the paper prints at least half), the lowest id of equal matches, 1 for "
        "images without objects: ports of the challenge's code",
        "objects of a mask: parts connected along edges or corners, as MATLAB's bwlabel by default",
        "semantic Dice and IoU, mean over images at their own size: our reading of the papers that "
        "print mDice and mIoU on GlaS, none of which releases its evaluation",
    ),
    stacks=("time", "single"),
    target=TargetSpec(kind="binary", names=("background", "gland")),
    per="image",
    columns=("iou", "object-dice", "object-f1"),
)

PROTOCOLS = (glands,)
