"""Every metric's card says what its function does: best for a perfect match, worse otherwise."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from segweave.registry import metrics

TRUTH = np.zeros((24, 24), np.uint8)
TRUTH[4:16, 5:18] = 1
WORSE = TRUTH ^ (np.random.default_rng(1).random(TRUTH.shape) < 0.3)
# The E-measure divides by pixels − 1, and threshold 0 marks the whole image.
WHOLE_IMAGE = 1 / 4 * TRUTH.size / (TRUTH.size - 1)
SHARE = TRUTH.mean()
BEST = {
    "e-measure-max": TRUTH.size / (TRUTH.size - 1),
    "e-measure-adaptive": TRUTH.size / (TRUTH.size - 1),
    "e-measure-mean": (255 * TRUTH.size / (TRUTH.size - 1) + WHOLE_IMAGE) / 256,
    "dice-256": (255 + 2 * SHARE / (1 + SHARE)) / 256,
    "iou-256": (255 + SHARE) / 256,
    "psnr": math.inf,
}


@pytest.mark.parametrize("name", sorted(metrics.cards()))
def test_a_perfect_match_is_best_and_another_worse(name: str) -> None:
    card, entry = metrics.card(name), metrics.entry(name)
    room = entry.__module__.rpartition(".")[2]
    known = set(inspect.signature(entry).parameters)
    arguments = dict(card.options)
    arguments.update({"spacing": (1.0, 1.0)} if "spacing" in known else {})
    arguments.update({"data_range": 1.0} if "data_range" in known else {})
    good, bad = TRUTH, WORSE
    if room == "saliency":
        good, bad = (255 * m for m in (good, bad))
    elif room == "objects":
        bad = np.roll(TRUTH, 10, axis=1)
    elif room == "calibration":
        good, bad = (m[None].astype(float) for m in (good, bad))
    perfect, worse = (entry(m, TRUTH, **arguments) for m in (good, bad))
    assert isinstance(perfect, float)
    assert isinstance(worse, float)
    best = BEST.get(name, 1.0 if card.better == "higher" else 0.0)
    assert perfect == pytest.approx(best, abs=1e-12)
    assert (worse < perfect) == (card.better == "higher")
    assert worse != perfect
