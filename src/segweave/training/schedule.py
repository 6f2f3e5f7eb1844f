"""The learning rate as a pure function of the optimiser step, so that resuming needs no state."""

from __future__ import annotations

import math

from segweave.recipes.recipe import Schedule


def rate_at(schedule: Schedule, full: float, step: int, steps: int) -> float:
    """The learning rate that optimiser step `step` (from 0) of `steps` uses.

    poly: full × (1 − step / steps)^power. With `released`, the published code sets the rate after a
    step with the count before it grows: steps 0 and 1 both use the full rate, step t the value of
    t − 1.
    """
    if step < schedule.warm_up:
        return full * (step + 1) / (schedule.warm_up + 1)
    counted = max(step - 1, 0) if schedule.released else step
    done = min(counted / steps, 1.0)
    if schedule.name == "poly":
        return float(full * (1.0 - done) ** schedule.power)
    if schedule.name == "cosine":
        return full * 0.5 * (1.0 + math.cos(math.pi * done))
    return full
