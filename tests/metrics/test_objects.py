"""Scores of single objects: by hand, by all pairs of pixels, and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segweave.errors import InputError
from segweave.metrics import connected_objects, object_scores
from segweave.metrics.objects import object_dice, object_f1, object_hausdorff

maps = arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 0, 1, 2, 5]))


def hausdorff(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float]) -> float:
    x, y = np.argwhere(a) * spacing, np.argwhere(b) * spacing
    d = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    return float(max(d.min(axis=1).max(), d.min(axis=0).max()))


def by_words(s: np.ndarray, g: np.ndarray, spacing: tuple[float, float]) -> tuple[float, ...]:
    """Object Dice, F1 and Hausdorff distance as Sirinukunwattana et al. 2017 define them."""
    dice, apart, found = 0.0, 0.0, 0
    for ours, theirs, first in ((s, g, True), (g, s, False)):
        for k in np.unique(ours[ours > 0]).tolist():
            a = ours == k
            others = {
                j: int((a & (theirs == j)).sum()) for j in np.unique(theirs[theirs > 0]).tolist()
            }
            weight = a.sum() / (ours > 0).sum()
            best = max(others, key=lambda j: (others[j], -j))
            if others[best]:
                b = theirs == best
                dice += weight * 2 * others[best] / (a.sum() + b.sum()) / 2
                apart += weight * hausdorff(a, b, spacing) / 2
                found += first and others[best] > b.sum() / 2
            else:
                apart += weight * min(hausdorff(a, theirs == j, spacing) for j in others) / 2
    objects = sum(len(np.unique(m[m > 0])) for m in (s, g))
    return dice, 2 * found / objects, apart


@given(maps, maps, st.tuples(st.floats(0.3, 4), st.floats(0.3, 4)))
@settings(max_examples=60, deadline=None)
def test_scores_equal_the_papers_words(
    s: np.ndarray, g: np.ndarray, spacing: tuple[float, float]
) -> None:
    if not s.any() or not g.any():
        return
    found = object_scores(s, g, spacing)
    assert (found.dice, found.f1, found.hausdorff) == pytest.approx(by_words(s, g, spacing))


def test_by_hand() -> None:
    # Reference: a gland of 4 × 4 and one of 2 × 2; predicted: the large one a column narrower, and
    # a stray pixel 3 columns right of it.
    reference = np.zeros((8, 14), np.uint8)
    reference[1:5, 1:5], reference[6:8, 10:12] = 1, 2
    prediction = np.zeros_like(reference)
    prediction[1:5, 1:4], prediction[2, 7] = 3, 9
    found = object_scores(prediction, reference, None)
    large = 2 * 12 / 28
    assert found.dice == pytest.approx((12 / 13 * large + 16 / 20 * large) / 2)
    assert (found.predicted, found.present, found.found) == (2, 2, 1)
    assert (found.f1, found.precision, found.recall) == (0.5, 0.5, 0.5)
    # The stray pixel is nearest to the small gland: its farthest pixel is (7, 11).
    stray_to_small = math.hypot(5, 4)
    stray_to_large = math.hypot(2, 6)
    assert stray_to_large < stray_to_small
    small_to_stray = stray_to_small
    assert found.hausdorff == pytest.approx(
        (12 / 13 * 1 + 1 / 13 * stray_to_large + 16 / 20 * 1 + 4 / 20 * small_to_stray) / 2
    )


def test_half_of_an_object_does_not_find_it() -> None:
    reference = np.zeros((4, 6), np.uint8)
    reference[:, :4] = 1
    half, more = reference.copy(), reference.copy()
    half[:, 2:], more[1:, 2:] = 0, 0
    assert object_f1(half, reference) == 0
    assert object_f1(more, reference) == 1


def test_images_without_objects() -> None:
    empty, some = np.zeros((5, 5), np.uint8), np.zeros((5, 5), np.uint8)
    some[1:3, 1:3] = 1
    assert math.isnan(object_dice(empty, empty))
    assert math.isnan(object_f1(empty, empty))
    for pair in ((empty, some), (some, empty)):
        assert object_dice(*pair) == object_f1(*pair) == 0
        assert math.isnan(object_hausdorff(*pair, None))


@given(maps, maps)
@settings(max_examples=40, deadline=None)
def test_swapping_keeps_dice_and_distance(s: np.ndarray, g: np.ndarray) -> None:
    there, back = object_scores(s, g, None), object_scores(g, s, None)
    for name in ("dice", "hausdorff"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), nan_ok=True)


def test_images_added_up_equal_one_with_all_objects() -> None:
    generator = np.random.default_rng(2)
    images = generator.integers(0, 4, (2, 2, 6, 6))
    ids = images + np.where(images > 0, [[[[0]]], [[[10]]]], 0)
    added = object_scores(*images[0], None) + object_scores(*images[1], None)
    # Far apart side by side, no object meets one of the other image.
    wide = np.concatenate([ids[0], np.zeros((2, 6, 90), int), ids[1]], axis=2)
    joined = object_scores(wide[0], wide[1], None)
    for name in ("dice", "f1", "hausdorff"):
        assert getattr(added, name) == pytest.approx(getattr(joined, name))


def test_connected_objects_touch_at_corners() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert connected_objects(mask).tolist() == [[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 3]]


def test_wrong_input() -> None:
    with pytest.raises(InputError, match="one shape"):
        object_scores(np.zeros((2, 2), int), np.zeros((2, 3), int), None)
    with pytest.raises(InputError, match="integer class ids"):
        object_scores(np.zeros((2, 2)), np.zeros((2, 2), int), None)
