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
from segweave.evaluation.protocols import Protocol
from segweave.evaluation.scores import Layer, Score, foreground_name
from segweave.metrics import confusion, connected_objects, get_policy, object_scores
from segweave.metrics.compute import missing, value_unit
from segweave.metrics.labels import Spacing


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

    def label_layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        (layer,) = self.layers(prediction, reference, target, instances)
        ours, theirs = (ids.astype(np.bool_) for ids in (layer.prediction, layer.reference))
        return [Layer(ours, theirs, layer.names, layer.reference)]

    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, metrics: tuple[str, ...]
    ) -> Iterator[Score]:
        # The objects are measured once for all of their metrics.
        (name,) = layer.names.values()
        policy = get_policy(self.empties)
        for index, (ours, theirs) in enumerate(zip(layer.prediction, layer.reference, strict=True)):
            objects = object_scores(ours, theirs, None, distances="object-hd" in metrics)
            counts = confusion(ours != 0, theirs != 0, (1,))[1]
            values = {
                "object-dice": objects.dice,
                "object-f1": objects.f1,
                "object-hd": objects.hausdorff,
                "dice": counts.dice,
                "iou": counts.iou,
            }
            lacks = missing(objects.predicted, objects.present)
            for metric in metrics:
                card = self.card(metric)
                outcome = policy.outcome(card, values[metric], lacks, ours.shape, None)
                assert outcome is not None
                unit = value_unit(card, None, ours.ndim)
                yield Score(index, name, metric, outcome.value, unit, outcome.status)


def _objects(labels: NDArray[Any], *, split: bool) -> NDArray[np.int32]:
    """A mask of 0 and 1 → its connected objects; a map of more ids holds one object an id."""
    if split and int(labels.max(initial=0)) <= 1:
        return connected_objects(labels)
    return labels.astype(np.int32)


glands = _Glands(
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
    empties="glas",
    in_voxels=True,
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
    columns=("iou", "object-dice", "object-f1", "object-hd"),
)

PROTOCOLS = (glands,)
