"""How uncertain a prediction is, pixel by pixel, as a number from 0 to 1.

`entropy` is that of the mean probabilities: high wherever classes compete. `mutual-information` is
the part of it that comes from members (networks, mirror images) which disagree: the entropy of the
mean minus the mean of the entropies. Both are divided by the largest possible entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec, check_classes
from segweave.errors import UsageError, nearest
from segweave.prediction.flips import mean_maps
from segweave.prediction.temperature import scaled

Uncertainty = Literal["entropy", "mutual-information"]
Planes = NDArray[np.float32]


def check_uncertainty(name: str | None, members: int) -> None:
    """Raise UsageError for an unknown name, and where mutual information has a single member.

    Args:
        name: one of `Uncertainty`.
        members: the number of predictions that are averaged: networks times mirror images.
    """
    doing = "measuring uncertainty"
    if name is None:
        return
    if name not in get_args(Uncertainty):
        raise UsageError(doing, found=repr(name), remedy=nearest(name, get_args(Uncertainty)))
    if name == "mutual-information" and members < 2:
        raise UsageError(
            doing,
            expected="at least two predictions whose disagreement is measured",
            found="one model without flips",
            remedy="average models (--with MODEL) or mirror images (--flips rows), or take the "
            "entropy",
        )


def entropy(probabilities: Planes, target: TargetSpec) -> Planes:
    """Probabilities (classes, height, width) → entropy (height, width), 0 to 1.

    Exclusive classes: over the classes, divided by log(classes). Sigmoid channels: of each channel,
    divided by log 2, mean over the channels.
    """
    p = np.clip(probabilities, np.float32(1e-12), np.float32(1))
    total: Planes
    if target.kind == "exclusive":
        total = -(p * np.log(p)).sum(axis=0) / np.float32(math.log(max(2, len(p))))
    else:
        q = np.clip(1 - probabilities, np.float32(1e-12), np.float32(1))
        both = -(p * np.log(p) + q * np.log(q)) / np.float32(math.log(2))
        total = both.mean(axis=0)
    return np.clip(total, 0, 1)


def found_slices(
    members: Sequence[Iterator[Planes]],
    target: TargetSpec,
    temperature: float | None,
    wanted: Uncertainty | None,
) -> Iterator[tuple[Planes, Planes, Planes | None]]:
    """Each slice of a case in turn: mean probabilities (classes, height, width), the same at the
    temperature, and the uncertainty (height, width) where `wanted`.

    The entropy is that of the calibrated probabilities. Mutual information takes no temperature:
    members are compared as they are.

    Args:
        members: for each network the maps of each slice: its probabilities, and for mutual
            information behind them those of each mirror image, joined on the class axis.
        target: the classes.
        temperature: of the mean; None where there is none.
        wanted: which uncertainty.
    """
    if wanted is not None:
        check_classes(target, "measuring uncertainty")

    def calibrated(maps: Planes) -> Planes:
        return maps if temperature is None else scaled(maps, target, temperature)

    if wanted == "mutual-information":
        for maps, information in mean_and_information(members, target):
            yield maps, calibrated(maps), information
        return
    for maps in mean_maps(members):
        shown = calibrated(maps)
        yield maps, shown, None if wanted is None else entropy(shown, target)


def mean_and_information(
    members: Sequence[Iterator[Planes]], target: TargetSpec
) -> Iterator[tuple[Planes, Planes]]:
    """Mean probabilities and mutual information of each slice in turn, as `found_slices` takes and
    gives them. Members are added one after the other, so that one's maps of one slice are held.
    """
    while True:
        total: Planes | None = None
        certain: Planes | None = None
        views = 0
        for member in members:
            maps = next(member, None)
            if maps is None:
                return
            blocks = maps.reshape(-1, target.classes, *maps.shape[1:])
            # Added as the plain mean adds them, so that labels do not depend on this option.
            total = blocks[0].copy() if total is None else np.add(total, blocks[0], out=total)
            for view in blocks[1:] if len(blocks) > 1 else blocks:
                one = entropy(view, target)
                certain = one if certain is None else np.add(certain, one, out=certain)
                views += 1
        assert total is not None, "there is at least one member"
        assert certain is not None, "there is at least one view"
        mean: Planes = total / np.float32(len(members)) if len(members) > 1 else total
        yield mean, np.clip(entropy(mean, target) - certain / np.float32(views), 0, 1)
