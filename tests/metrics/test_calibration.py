"""Calibration: by hand, and against plain words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.errors import InputError, UsageError
from segweave.metrics.calibration import brier_score, expected_calibration_error, reliability


def test_by_hand() -> None:
    # Four pixels of confidence 0.9, three of them right, and two of 0.6, one right.
    foreground = np.array([[[0.9, 0.9, 0.1, 0.9, 0.6, 0.4]]])
    truth = np.array([[1, 1, 0, 0, 1, 1]])
    assert expected_calibration_error(foreground, truth, bins=10) == pytest.approx(
        (4 * abs(0.75 - 0.9) + 2 * abs(0.5 - 0.6)) / 6
    )
    assert reliability(foreground, truth, bins=10).largest_error == pytest.approx(0.15)
    squares = [0.01, 0.01, 0.01, 0.81, 0.16, 0.36]
    assert brier_score(foreground, truth) == pytest.approx(2 * np.mean(squares))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_equals_plain_words(seed: int, classes: int, bins: int) -> None:
    generator = np.random.default_rng(seed)
    chances = generator.dirichlet(np.ones(classes), (2, 4, 5)).transpose(0, 3, 1, 2)
    truth = generator.integers(0, classes, (2, 4, 5))
    confidence, label = chances.max(axis=1), chances.argmax(axis=1)
    wanted = 0.0
    for k in range(bins):
        held = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if held.any():
            right = (label == truth)[held].mean()
            wanted += held.mean() * abs(right - confidence[held].mean())
    assert expected_calibration_error(chances, truth, bins) == pytest.approx(wanted)
    one_hot = np.moveaxis(np.eye(classes)[truth], -1, 1)
    assert brier_score(chances, truth) == pytest.approx(((chances - one_hot) ** 2).sum(1).mean())


def test_images_add_up_and_ignored_pixels_do_not_count() -> None:
    generator = np.random.default_rng(0)
    chances = generator.random((3, 1, 6, 6))
    truth = generator.integers(0, 2, (3, 6, 6))
    parts = [reliability(c, t) for c, t in zip(chances, truth, strict=True)]
    added, whole = parts[0] + parts[1] + parts[2], reliability(chances, truth)
    assert added.expected_error == pytest.approx(whole.expected_error)
    assert added.brier == pytest.approx(whole.brier)
    marked = truth.copy()
    marked[2] = 255
    kept = reliability(chances, marked, ignored=255)
    assert kept.brier == pytest.approx((parts[0] + parts[1]).brier)
    assert kept.counts.sum() == 72
    nothing = reliability(chances[:1], np.full((1, 6, 6), 255), ignored=255)
    for value in (nothing.expected_error, nothing.largest_error, nothing.brier):
        assert math.isnan(value)


def test_confident_and_right_is_perfect() -> None:
    truth = np.array([[0, 2, 1]])
    chances = np.eye(3)[truth].transpose(2, 0, 1)
    assert expected_calibration_error(chances, truth) == 0
    assert brier_score(chances, truth) == 0
    assert brier_score(np.roll(chances, 1, axis=0), truth) == 2


def test_wrong_input() -> None:
    truth = np.zeros((2, 2), int)
    with pytest.raises(InputError, match="sum to 1"):
        brier_score(np.full((2, 2, 2), 0.7), truth)
    with pytest.raises(InputError, match="not logits"):
        brier_score(np.array([[[3.0, -2.0], [0, 0]]]), truth)
    with pytest.raises(InputError, match="class ids"):
        brier_score(np.full((2, 2, 2), 0.5), truth + 2)
    with pytest.raises(InputError, match="height"):
        brier_score(np.full((2, 2), 0.5), truth)
    with pytest.raises(UsageError, match="one bin"):
        expected_calibration_error(np.full((1, 2, 2), 0.5), truth, bins=0)
