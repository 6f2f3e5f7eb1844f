"""Polyps as PraNet's released evaluation scores them: soft maps at the image's own size, 256
thresholds, every image with equal weight.

Source: what the evaluation that DengPingFan/PraNet publishes (in MATLAB) computes, and how its
`MyTest.py` saves maps; ESFPNet, SSFormer, SANet and others score with the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from segweave.data.case import Stack
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.evaluation.protocols import Needs, Protocol
from segweave.evaluation.scores import Layer, Score, foreground_name, layers_of
from segweave.metrics import compute_metric, saliency
from segweave.metrics.compute import Status
from segweave.metrics.labels import Spacing


class _Polyps(Protocol):
    def layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        name = foreground_name(self.name, target)
        if (
            prediction.shape != reference.shape
            or prediction.ndim != 3
            or not (prediction.dtype == np.uint8 or prediction.dtype.kind in "bf")
        ):
            raise InputError(
                "scoring a case",
                expected="maps of 8 bits or of 0..1, of the reference's shape (slices, h, w)",
                found=f"{prediction.dtype} {prediction.shape}, reference {reference.shape}",
            )
        return [Layer(prediction, reference == 1, {1: name})]

    def label_layers(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        target: TargetSpec,
        instances: NDArray[Any] | None,
    ) -> list[Layer]:
        return layers_of(self.shown(prediction), reference, target, instances)

    def from_network(
        self, probabilities: NDArray[Any], size: tuple[int, int], target: TargetSpec
    ) -> NDArray[np.uint8]:
        return saved_map(probabilities[-1], size)

    def shown(self, scored: NDArray[Any]) -> NDArray[np.uint8]:
        halves = [_stretched(given) >= 0.5 for given in scored]
        return np.array(halves, np.uint8).reshape(scored.shape)

    def _score(
        self, layer: Layer, spacing: Spacing, stack: Stack, metrics: tuple[str, ...]
    ) -> Iterator[Score]:
        (name,) = layer.names.values()
        for index, (given, mask) in enumerate(zip(layer.prediction, layer.reference, strict=True)):
            soft_map = _stretched(given)
            curves = saliency.threshold_curves(soft_map, mask)
            status: Status = "scored" if mask.any() else "rule"
            for metric in metrics:
                largest = metric.endswith("-max")
                curve_name = _CURVES.get(metric.removesuffix("-max"))
                if metric in _AT_HALF:
                    value, curve = float(getattr(curves, metric)[_HALF]), None
                elif curve_name is not None:
                    curve = getattr(curves, curve_name)
                    value = float(curve.max() if largest else curve.mean())
                else:
                    value, curve = compute_metric(metric, soft_map, mask), None
                yield Score(index, name, metric, value, "", status, curve if largest else None)


def _stretched(given: NDArray[Any]) -> NDArray[np.float64]:
    # A label map of 0 and 1 is a soft map too, with the values 0.0 and 1.0.
    return saliency.stretched(given if given.max(initial=0) > 1 else given.astype(np.float64))


def saved_map(probabilities: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Probabilities (h, w) on the network's grid → the map of 8 bits (H, W) that the released code
    saves: logits enlarged (linear, pixel areas aligned), sigmoid, stretched to 0..255.
    """
    chances = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    logits = np.log(chances / (1 - chances))
    factors = [m / n for n, m in zip(logits.shape, size, strict=True)]
    large = zoom(logits, factors, order=1, mode="nearest", grid_mode=True)
    soft_map = 1 / (1 + np.exp(-large))
    soft_map = (soft_map - soft_map.min()) / (soft_map.max() - soft_map.min() + 1e-8)
    return np.floor(255 * soft_map + 0.5).astype(np.uint8)


_CURVES = {
    "dice-256": "dice",
    "iou-256": "iou",
    "sensitivity-256": "sensitivity",
    "specificity-256": "specificity",
    "e-measure": "e_measure",
}
_AT_HALF = ("dice", "iou")
# The first of the thresholds k/255 that is not below a half.
_HALF = 128
_LARGEST = "at the one threshold of 256 that is best for the mean over all images"

polyps = _Polyps(
    name="published-polyps",
    title=(
        "as PraNet's released evaluation: soft maps of 8 bits at the image's own size, stretched "
        "to 0..1, masks map ≥ k/255 for k = 0..255; nothing rightly found scores 0"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN) of the stretched map ≥ 1/2 (not in the released tool)",
        "iou": "TP / (TP + FP + FN) of the stretched map ≥ 1/2 (not in the released tool)",
        "dice-256": "the field's mDice: Dice, mean over 256 thresholds",
        "iou-256": "the field's mIoU: IoU, mean over 256 thresholds",
        "dice-256-max": f"Dice {_LARGEST}",
        "iou-256-max": f"IoU {_LARGEST}",
        "sensitivity-256": "TP / (TP + FN), mean over 256 thresholds",
        "specificity-256": "TN / (TN + FP), mean over 256 thresholds",
        "weighted-f": "weighted F-measure, beta 1, Gaussian of 7 × 7 pixels and sd 5",
        "s-measure": "structure measure, alpha 1/2",
        "e-measure": "enhanced alignment measure, mean over 256 thresholds",
        "e-measure-max": f"enhanced alignment measure {_LARGEST}",
        "mae": "mean of |map − mask|",
    },
    means="over images, every image weighing alike",
    needs=Needs(decide_on="network"),
    datasets=(
        "cvc-clinicdb",
        "kvasir-seg",
        "etis-larib",
        "cvc-colondb",
        "cvc-300",
        "cvc-endoscene",
    ),
    sources=(
        "size, stretch, thresholds, definitions, means: PraNet's MATLAB evaluation",
        "enlarging of logits, 8 bits: PraNet's MyTest.py",
    ),
    stacks=("time", "single"),
    target=TargetSpec(kind="binary", names=("background", "polyp")),
    per="image",
    columns=(
        "dice-256",
        "iou-256",
        "weighted-f",
        "s-measure",
        "e-measure",
        "e-measure-max",
        "mae",
    ),
)

PROTOCOLS = (polyps,)
