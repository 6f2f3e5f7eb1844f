"""The learning rate as a function of the optimiser step, so that resuming needs no state; only
`plateau` depends on the scores too.
"""

from __future__ import annotations

import math

from segweave.recipes.recipe import Recipe
from segweave.recipes.sections import Schedule


def rate_at(
    schedule: Schedule,
    full: float,
    step: int,
    steps: int,
    *,
    steps_per_epoch: int = 1,
    falls: int = 0,
) -> float:
    """The learning rate that optimiser step `step` (from 0) of `steps` uses.

    poly: full × (1 − step / steps)^power. With `released`, the published code sets the rate after a
    step with the count before it grows: steps 0 and 1 both use the full rate, step t the value of
    t − 1. step: full × factor^n after n times `every` epochs. plateau: full × factor^falls, but
    not less than `lowest`.

    Args:
        schedule: the recipe's.
        full: the full rate.
        step: from 0.
        steps: of the whole training.
        steps_per_epoch: what `every` epochs are counted in.
        falls: how often the validation Dice has stood still (see `falls_now`).
    """
    if step < schedule.warm_up:
        return full * (step + 1) / (schedule.warm_up + 1)
    counted = max(step - 1, 0) if schedule.released else step
    done = min(counted / steps, 1.0)
    if schedule.name == "poly":
        return float(full * (1.0 - done) ** schedule.power)
    if schedule.name == "cosine":
        return full * 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule.name == "step":
        return float(full * schedule.factor ** (counted // (schedule.every * steps_per_epoch)))
    if schedule.name == "plateau":
        return max(full * schedule.factor**falls, min(schedule.lowest, full))
    return full


def falls_now(schedule: Schedule, stale: int) -> bool:
    """Whether the rate falls after a validation; `stale` counts the validations since the highest
    Dice. As torch's ReduceLROnPlateau: after `patience` + 1 of them, then again after as many.
    """
    return schedule.name == "plateau" and stale > 0 and stale % (schedule.patience + 1) == 0


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole training."""
    training = recipe.training
    if training.steps is not None:
        return training.steps
    assert training.epochs is not None
    return training.epochs * steps_per_epoch
