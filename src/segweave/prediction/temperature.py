"""Temperature scaling: one number that makes predicted probabilities as certain as they are right.

It acts on the final probabilities on the case's own grid, after members, flips and tiles were
averaged: softmax(log p / T), for sigmoid channels sigmoid(logit p / T). Of a single model on its
own grid that equals the usual scaling of its logits (Guo et al., ICML 2017); of averages it is
"pool, then calibrate" (Rahaman and Thiery, NeurIPS 2021). The order of classes never changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.prediction.tiles import Tiles

CARD_KEY = "temperatures"
"""Where a model card keeps its temperatures, one for each combination of members, flips, tiles."""
BOUNDS = (0.05, 20.0)
# Probabilities are float32: what is nearer to 0 than this has lost its digits.
_LEAST = 1e-7

Planes = NDArray[np.float32]


def scaled(probabilities: NDArray[Any], target: TargetSpec, temperature: float) -> Planes:
    """Probabilities (..., classes, height, width) at another temperature, as float32. Above 1 they
    are less certain, below 1 more; at 1 they are returned as they are.
    """
    if temperature == 1.0:
        return probabilities.astype(np.float32, copy=False)
    logits = logits_of(probabilities, target) / np.float32(temperature)
    return probabilities_of(logits, target, axis=-3)


def logits_of(probabilities: NDArray[Any], target: TargetSpec) -> Planes:
    """Numbers whose softmax over classes, or whose sigmoid, are these probabilities."""
    floor = np.float32(_LEAST)
    p = np.maximum(probabilities.astype(np.float32, copy=False), floor)
    if target.kind == "exclusive":
        return np.log(p)
    return np.log(p) - np.log(np.maximum(1 - p, floor))


def probabilities_of(logits: Planes, target: TargetSpec, axis: int) -> Planes:
    """Softmax over `axis` of exclusive classes, else the sigmoid."""
    if target.kind != "exclusive":
        # tanh does not overflow.
        result: Planes = 0.5 * (1 + np.tanh(0.5 * logits))
        return result
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    result = powers / powers.sum(axis=axis, keepdims=True)
    return result


def negative_log_likelihood(
    logits: NDArray[np.float64], truth: NDArray[Any], target: TargetSpec, temperature: float = 1.0
) -> float:
    """Mean over voxels of −log of the probability of what is true; for sigmoid channels the mean
    over voxels and channels.

    Args:
        logits: (voxels, channels).
        truth: exclusive: class ids (voxels,); else 0 and 1, (voxels, channels).
        target: the classes.
        temperature: what the logits are divided by.
    """
    z = logits / temperature
    if target.kind == "exclusive":
        top = z.max(axis=1)
        total = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        return float((total - z[np.arange(len(z)), truth]).mean())
    # −log sigmoid(±z) without overflow.
    return float(np.logaddexp(0, np.where(truth != 0, -z, z)).mean())


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[Any], target: TargetSpec) -> float:
    """The temperature with the least negative log likelihood, whose arguments these are.

    The likelihood is convex in 1 / temperature, so that the minimum is the only one. Raises
    InputError where it is at a bound: every voxel is right, or none is better than chance.
    """
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(logits, truth, target, math.exp(logarithm))

    low, high = (math.log(bound) for bound in BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    # At a bound, or as flat as there.
    sure, chance = loss(low) <= found.fun + 1e-9, loss(high) <= found.fun + 1e-9
    if sure or chance:
        raise InputError(
            "fitting a temperature",
            expected=f"a least negative log likelihood between {BOUNDS[0]} and {BOUNDS[1]:g}",
            found="none: nearly every sampled voxel is right"
            if sure
            else "none: the probabilities are no better than chance",
            remedy="calibrate with more validation cases, on which the model makes some errors"
            if sure
            else "train longer first",
        )
    return round(float(math.exp(found.x)), 4)


def combination(
    cards: Sequence[Mapping[str, Any]], flips: str, tiles: Tiles | None
) -> dict[str, Any]:
    """What identifies the probabilities that a temperature belongs to, as plain values."""
    cut: dict[str, Any] | None = None
    if tiles is not None:
        size = None if tiles.size is None else list(tiles.size)
        cut = {"size": size, "overlap": tiles.overlap}
    members = sorted(str(card.get("weights_sha256")) for card in cards)
    return {"members": members, "flips": flips, "tiles": cut}


def kept_temperature(
    cards: Sequence[Mapping[str, Any]], flips: str = "none", tiles: Tiles | None = None
) -> dict[str, Any] | None:
    """The entry of the members' cards for this very combination, None where there is none. The
    order of the members does not matter. Raises InputError for an entry that is damaged.
    """
    wanted = combination(cards, flips, tiles)
    for card in cards:
        for entry in card.get(CARD_KEY) or ():
            if not isinstance(entry, dict) or any(entry.get(k) != v for k, v in wanted.items()):
                continue
            value = entry.get("temperature")
            if not isinstance(value, int | float) or not BOUNDS[0] <= value <= BOUNDS[1]:
                raise InputError(
                    "reading the temperature of a model card",
                    expected=f"a number from {BOUNDS[0]} to {BOUNDS[1]:g}",
                    found=repr(value),
                    remedy="calibrate again (segweave calibrate RUN --force)",
                )
            return entry
    return None
