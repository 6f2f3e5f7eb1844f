"""Overlap from one count: by hand, against medpy, and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segweave.errors import InputError, UsageError
from segweave.metrics import confusion
from segweave.metrics.overlap import dice, precision

maps = arrays(np.uint8, st.just((3, 4, 5)), elements=st.integers(0, 3))


def test_counts_by_hand() -> None:
    prediction = np.array([[1, 1, 0, 2]])
    reference = np.array([[1, 0, 1, 2]])
    one = confusion(prediction, reference, (1, 2))[1]
    assert (one.true_positives, one.false_positives) == (1, 1)
    assert (one.false_negatives, one.true_negatives) == (1, 1)
    assert one.dice == 0.5
    assert one.iou == pytest.approx(1 / 3)
    assert one.precision == one.sensitivity == one.specificity == one.accuracy == 0.5
    assert confusion(prediction, reference, (1, 2))[2].dice == 1


@given(maps, maps)
@settings(max_examples=60, deadline=None)
def test_one_pass_equals_plain_counts(prediction: np.ndarray, reference: np.ndarray) -> None:
    few, many = (
        confusion(prediction, reference, (3, 1)),
        confusion(prediction, reference, (3, 1, 2, 9)),
    )
    assert few == {c: many[c] for c in (3, 1)}
    found = few
    for c in (1, 3):
        p, r = prediction == c, reference == c
        assert found[c].true_positives == np.sum(p & r)
        assert found[c].false_positives == np.sum(p & ~r)
        assert found[c].false_negatives == np.sum(~p & r)
        assert found[c].true_negatives == np.sum(~p & ~r)


@given(maps, maps)
@settings(max_examples=30, deadline=None)
def test_dice_agrees_with_medpy_and_is_symmetric(p: np.ndarray, r: np.ndarray) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    if p.any() or r.any():
        assert dice(p, r) == pytest.approx(binary.dc(p, r), abs=1e-12)
        assert dice(p, r) == dice(r, p)


def test_nothing_in_either_is_undefined_and_in_one_is_zero() -> None:
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert math.isnan(dice(empty, empty))
    assert dice(empty, full) == dice(full, empty) == 0
    assert math.isnan(precision(empty, full))


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint16, np.bool_])
def test_any_integer_type(dtype: type) -> None:
    labels = np.array([[0, 1], [1, 0]], dtype)
    assert confusion(labels, labels, (1,))[1].dice == 1


def test_large_ids() -> None:
    labels = np.array([[0, 500], [205, 0]])
    assert confusion(labels, labels, (500, 205))[500].true_positives == 1


def test_wrong_input() -> None:
    with pytest.raises(InputError, match="one shape"):
        dice(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(InputError, match="integer class ids"):
        confusion(np.zeros((2, 2)), np.zeros((2, 2), int), (1,))
    with pytest.raises(UsageError, match="different ids"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 2), int), (0, 1))


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 11)),
    seed=st.integers(0, 999),
    kind=st.sampled_from(["uint8", "uint16", "int32"]),
)
@settings(max_examples=60, deadline=None)
def test_compiled_counts_are_the_same(shape: tuple[int, int, int], seed: int, kind: str) -> None:
    pytest.importorskip("numba")
    generator = np.random.default_rng(seed)
    maps = [
        (generator.integers(0, 7, shape) * (generator.random(shape) < 0.3)).astype(kind)
        for _ in range(2)
    ]
    for classes in ((1,), (5, 2), (1, 2, 3, 4, 5, 6)):
        plain = confusion(*maps, classes, engine="numpy")
        assert confusion(*maps, classes, engine="compiled") == plain
