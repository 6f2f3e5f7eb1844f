"""Calibration by class and on the foreground, and error against uncertainty: in plain words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segweave.errors import InputError
from segweave.metrics import compute_metric
from segweave.metrics.calibration_classes import class_reliability, foreground_reliability
from segweave.metrics.selective import RiskCoverage, entropies, risk_coverage


def made(seed: int = 0, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    chances = draw.dirichlet(np.ones(classes), (2, 6, 7)).transpose(0, 3, 1, 2)
    return chances, draw.integers(0, classes, (2, 6, 7))


def test_by_class_in_plain_words() -> None:
    chances, truth = made()
    errors = []
    for k in range(3):
        p, y = chances[:, k].ravel(), truth.ravel() == k
        error = 0.0
        for b in range(15):
            held = (p > b / 15) & (p <= (b + 1) / 15)
            if held.any():
                error += held.mean() * abs(p[held].mean() - y[held].mean())
        errors.append(error)
    assert compute_metric("ece-classwise", chances, truth) == pytest.approx(np.mean(errors))
    each = class_reliability(chances, truth)
    assert [one.expected_error for one in each] == pytest.approx(errors)
    # The Brier score is the sum over classes.
    whole = compute_metric("brier", chances, truth)
    assert sum(one.brier for one in each) == pytest.approx(whole)


def test_on_the_foreground_in_plain_words() -> None:
    chances, truth = made(1)
    label, confidence = chances.argmax(axis=1), chances.max(axis=1)
    seen = (label > 0) | (truth > 0)
    error = 0.0
    for b in range(15):
        held = seen & (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if held.any():
            gap = abs((label == truth)[held].mean() - confidence[held].mean())
            error += held.sum() / seen.sum() * gap
    assert compute_metric("ece-foreground", chances, truth) == pytest.approx(error)
    assert foreground_reliability(chances, truth).counts.sum() == seen.sum()
    nothing = np.zeros((1, 4, 4)), np.zeros((4, 4), np.uint8)
    assert math.isnan(compute_metric("ece-foreground", *nothing))


def test_likelihood_in_plain_words() -> None:
    chances, truth = made(2)
    flat = np.moveaxis(chances, 1, -1).reshape(-1, 3)
    wanted = -np.log(flat[np.arange(len(flat)), truth.ravel()]).mean()
    assert compute_metric("nll", chances, truth) == pytest.approx(wanted)
    marked = truth.copy()
    marked[1] = 255
    half = compute_metric("nll", chances[:1], truth[:1])
    assert compute_metric("nll", chances, marked, ignored=255) == pytest.approx(half)


def test_area_in_plain_words() -> None:
    chances, truth = made(3)
    flat = np.moveaxis(chances, 1, -1).reshape(-1, 3)
    wrong = flat.argmax(axis=1) != truth.ravel()
    order = np.argsort(entropies(flat), kind="stable")
    risks = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    assert compute_metric("aurc", chances, truth) == pytest.approx(risks.mean())
    coverage, risk = risk_coverage(entropies(flat), wrong).curve()
    assert coverage == pytest.approx(np.arange(1, len(order) + 1) / len(order))
    assert risk == pytest.approx(risks)
    best = risk_coverage(entropies(flat), wrong).best_area
    perfect = np.cumsum(np.sort(wrong)) / np.arange(1, len(order) + 1)
    assert best == pytest.approx(perfect.mean())
    assert best < risks.mean()


def test_equal_uncertainties_count_in_random_order() -> None:
    tied = risk_coverage(np.zeros(6), np.array([1, 0, 0, 1, 0, 0], bool))
    assert tied.area == pytest.approx(2 / 6)
    parts = risk_coverage(np.array([0.1, 0.9]), np.array([False, True]), steps=10)
    joined = parts + parts
    assert isinstance(joined, RiskCoverage)
    assert joined.counts.sum() == 4
    assert joined.risk == 0.5
    assert joined.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    with pytest.raises(InputError, match="from 0 to 1"):
        risk_coverage(np.array([1.2]), np.array([True]))
