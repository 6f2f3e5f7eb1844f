"""Every metric's card declares what its function does, and every card can be computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segweave.errors import UsageError
from segweave.metrics import LabelPair, compute_metric
from segweave.registry import MetricCard, metrics

TRUTH = np.zeros((24, 24), np.uint8)
TRUTH[4:16, 5:18] = 1
WORSE = TRUTH ^ (np.random.default_rng(1).random(TRUTH.shape) < 0.3)
NAMES = sorted(metrics.cards())
OF_MASKS = [name for name, card in metrics.cards().items() if card.reads == "labels"]
# The E-measure divides by pixels − 1, and threshold 0 marks the whole image.
WHOLE_IMAGE = 1 / 4 * TRUTH.size / (TRUTH.size - 1)
SHARE = TRUTH.mean()
BEST = {
    "e-measure-max": TRUTH.size / (TRUTH.size - 1),
    "e-measure-adaptive": TRUTH.size / (TRUTH.size - 1),
    "e-measure": (255 * TRUTH.size / (TRUTH.size - 1) + WHOLE_IMAGE) / 256,
    "dice-256": (255 + 2 * SHARE / (1 + SHARE)) / 256,
    "iou-256": (255 + SHARE) / 256,
    "specificity-256": 255 / 256,
    "psnr": math.inf,
}


def arrays(card: MetricCard) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """A perfect prediction, a worse one, the reference, and further arguments, as the card asks."""
    good, bad, truth = TRUTH, WORSE, TRUTH
    options: dict[str, Any] = {}
    if card.absent:
        good, truth = np.zeros_like(TRUTH), np.zeros_like(TRUTH)
    elif card.reads == "soft-map":
        good, bad = 255 * good, 255 * bad
    elif card.reads == "instances":
        bad = np.roll(TRUTH, 10, axis=1)
    elif card.reads == "probabilities":
        good, bad = (m[None].astype(float) for m in (good, bad))
    elif card.reads == "images":
        options["data_range"] = 1.0
    return good, bad, truth, options


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_match_is_best_and_another_worse(name: str) -> None:
    card = metrics.card(name)
    good, bad, truth, options = arrays(card)
    perfect, worse = (
        compute_metric(name, m, truth, spacing=(1.0, 1.0), **options) for m in (good, bad)
    )
    best = BEST.get(name, 1.0 if card.better == "higher" else 0.0)
    assert perfect == pytest.approx(best, abs=1e-12)
    assert (worse < perfect) == (card.better == "higher")
    assert worse != perfect


@pytest.mark.parametrize("name", OF_MASKS)
def test_all_classes_at_once_are_each_class_by_itself(name: str) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.integers(0, 4, (2, 4, 9, 8)).astype(np.uint8)
    theirs[theirs == 3] = 0  # the reference lacks class 3, both lack class 4
    spacing = (3.0, 1.0, 2.0)
    pair = LabelPair(ours, theirs, (1, 2, 3, 4), spacing)
    assert [pair.missing(c) for c in (1, 2, 3, 4)] == [None, None, "reference", "both"]
    for c in (1, 2, 3, 4):
        by_itself = compute_metric(name, ours == c, theirs == c, spacing=spacing)
        value = pair.value(metrics.card(name), c)
        assert value == pytest.approx(by_itself, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_consistent(name: str) -> None:
    card = metrics.card(name)
    assert card.reads in ("labels", "instances", "soft-map", "probabilities", "images")
    assert card.better in ("higher", "lower")
    assert bool(card.shared) == bool(card.value)
    assert not card.shared or card.reads == "labels"
    assert card.spacing or card.unit not in ("mm", "ml")


def test_spacing_is_passed_to_the_metrics_that_take_it() -> None:
    moved = np.roll(TRUTH, 2, axis=0)
    assert compute_metric("hd", moved, TRUTH, spacing=(0.5, 3.0)) == 1
    assert compute_metric("hd", moved, TRUTH) == 2
    assert compute_metric("nsd", moved, TRUTH, spacing=(0.5, 3.0), tolerance=0.5) < 1
    assert compute_metric("nsd", moved, TRUTH, spacing=(0.5, 3.0)) == 1


def test_wrong_names_and_options() -> None:
    with pytest.raises(UsageError, match="hd95"):
        compute_metric("hd59", TRUTH, TRUTH)
    with pytest.raises(UsageError, match="tolerance"):
        compute_metric("nsd", TRUTH, TRUTH, tolerence=1.0)
    with pytest.raises(UsageError, match="data_range="):
        compute_metric("psnr", TRUTH, TRUTH)
