"""Scores of soft maps: by hand, by their own words, and against PySODMetrics' numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segweave.errors import InputError, UsageError
from segweave.metrics import saliency
from tests.reference import saliency as reference

maps = arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 60, 128, 200, 255]))
masks = arrays(np.bool_, (5, 6))


def plain_counts(soft_map: np.ndarray, mask: np.ndarray, k: int) -> tuple[int, int, int]:
    marked = soft_map.astype(int) >= k
    return int((marked & mask).sum()), int(marked.sum()), int(mask.sum())


@given(maps, masks)
@settings(max_examples=50, deadline=None)
def test_every_threshold_equals_plain_counts(soft_map: np.ndarray, mask: np.ndarray) -> None:
    curves = saliency.threshold_curves(soft_map, mask)
    for k in (0, 1, 2, 60, 61, 128, 200, 201, 255):
        hits, marked, present = plain_counts(soft_map, mask, k)
        assert curves.dice[k] == pytest.approx(2 * hits / (marked + present) if hits else 0)
        assert curves.iou[k] == pytest.approx(hits / (marked + present - hits) if hits else 0)
        assert curves.sensitivity[k] == pytest.approx(hits / present if hits else 0)
        negatives = mask.size - present
        wanted = (negatives - marked + hits) / negatives if hits and negatives else 0
        assert curves.specificity[k] == pytest.approx(wanted)


@given(maps, masks, st.sampled_from([1, 60, 128, 255]))
@settings(max_examples=50, deadline=None)
def test_e_measure_equals_the_papers_words(soft_map: np.ndarray, mask: np.ndarray, k: int) -> None:
    # Fan et al. 2018: bias maps, their alignment, squared and averaged, pixel by pixel.
    marked = (soft_map >= k).astype(float)
    if not mask.any():
        enhanced = 1 - marked
    elif mask.all():
        enhanced = marked
    else:
        a, b = marked - marked.mean(), mask - mask.mean()
        enhanced = (1 + 2 * a * b / (a**2 + b**2)) ** 2 / 4
    wanted = enhanced.sum() / (mask.size - 1)
    assert saliency.threshold_curves(soft_map, mask).e_measure[k] == pytest.approx(wanted)


def test_a_map_of_two_values_scores_as_the_known_formula() -> None:
    # 255 of 256 thresholds give the plain Dice, threshold 0 marks the whole image (share g).
    truth = np.zeros((10, 10), bool)
    truth[2:6, 2:7] = True
    found = np.zeros((10, 10), np.uint8)
    found[3:7, 2:7] = 255
    dice, g = 2 * 15 / 40, 0.2
    assert saliency.threshold_dice(found, truth) == pytest.approx(
        (255 * dice + 2 * g / (1 + g)) / 256
    )
    assert saliency.threshold_dice(found, truth, "max") == dice
    assert saliency.threshold_iou(found, truth) == pytest.approx((255 * 15 / 25 + g) / 256)


def test_mae_by_hand() -> None:
    soft_map = np.array([[0.25, 1.0], [0.0, 0.5]])
    assert saliency.mean_absolute_error(soft_map, np.array([[0, 1], [0, 1]])) == 0.75 / 4


def test_s_measure_by_hand() -> None:
    # Mask: the left column of 2 × 2; centroid at row 1.5 (rounded up to 2), column 1: blocks are
    # the left column and the right one, both rows each.
    truth = np.array([[1, 0], [1, 0]], bool)
    soft_map = np.array([[1.0, 0.0], [0.5, 0.5]])
    sd = math.sqrt(0.125)
    inside = 2 * 0.75 / (0.75**2 + 1 + sd)
    objects = 0.5 * inside + 0.5 * inside  # the background, 1 − (0, 0.5), is alike
    # Left: the mask does not vary, so that covariance is 0 and similarity 0; right alike: x·y = 0.
    assert saliency.s_measure(soft_map, truth) == pytest.approx(objects / 2)
    perfect = saliency.s_measure(truth.astype(float), truth)
    assert perfect == pytest.approx(1)


def test_s_measure_of_masks_without_edge() -> None:
    soft_map = np.full((4, 4), 0.25)
    assert saliency.s_measure(soft_map, np.zeros((4, 4))) == 0.75
    assert saliency.s_measure(soft_map, np.ones((4, 4))) == 0.25


def test_weighted_f_by_hand() -> None:
    # One true pixel in the middle of 9 × 9 and nothing found: precision and recall are 0.
    truth = np.zeros((9, 9), bool)
    truth[4, 4] = True
    nothing = np.zeros((9, 9))
    # All errors equal 1 after the nearest one is used, so that smoothing changes nothing inside.
    assert saliency.weighted_f_measure(nothing, truth) == pytest.approx(0, abs=1e-12)
    # The true pixel and a false one at distance 4: its error weighs 2 − 0.5^(4/5).
    found = truth.astype(float)
    found[4, 8] = 1
    precision = 1 / (1 + 2 - 0.5 ** (4 / 5))
    assert saliency.weighted_f_measure(found, truth) == pytest.approx(
        2 * precision / (1 + precision)
    )
    assert saliency.weighted_f_measure(found, np.zeros((9, 9))) == 0


def test_stretching_leaves_a_constant_map_alone() -> None:
    np.testing.assert_allclose(
        saliency.stretched(np.array([[51, 102, 153]], np.uint8)), [[0, 0.5, 1]]
    )
    np.testing.assert_allclose(saliency.stretched(np.full((2, 2), 51, np.uint8)), 0.2)


@given(maps, masks)
@settings(max_examples=40, deadline=None)
def test_mirroring_both_changes_only_what_is_rounded(
    soft_map: np.ndarray, mask: np.ndarray
) -> None:
    for metric in (
        saliency.mean_absolute_error,
        saliency.e_measure,
        saliency.threshold_dice,
        saliency.threshold_iou,
    ):
        there, mirrored = metric(soft_map, mask), metric(soft_map[:, ::-1], mask[:, ::-1])
        assert there == pytest.approx(mirrored, abs=1e-12)
        assert 0 <= there <= mask.size / (mask.size - 1) + 1e-12


def test_wrong_input() -> None:
    mask = np.ones((3, 3), bool)
    for wrong in (np.full((3, 3), 1.5), np.full((3, 3), np.nan), np.full((3, 3), -0.1)):
        with pytest.raises(InputError, match="0 to 1"):
            saliency.s_measure(wrong, mask)
    with pytest.raises(InputError, match="one shape"):
        saliency.mean_absolute_error(np.zeros((3, 4)), mask)
    with pytest.raises(UsageError, match="mean"):
        saliency.threshold_dice(np.zeros((3, 3)), mask, "meen")  # type: ignore[arg-type]


def ours(soft_map: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    stretched = saliency.stretched(soft_map)
    return {
        "mae": saliency.mean_absolute_error(stretched, truth),
        "sm": saliency.s_measure(stretched, truth),
        "wfm": saliency.weighted_f_measure(stretched, truth),
        "em-adaptive": saliency.e_measure(stretched, truth, "adaptive"),
        "em-mean": saliency.e_measure(stretched, truth),
        "dice-mean": saliency.threshold_dice(stretched, truth),
        "iou-mean": saliency.threshold_iou(stretched, truth),
    }


def test_as_pysodmetrics_computes() -> None:
    with np.load(reference.FILE) as kept:
        cases = zip(kept["soft_maps"], kept["truths"], kept["values"], strict=True)
        for soft_map, truth, values in cases:
            wanted = dict(zip(reference.NAMES, values.tolist(), strict=True))
            assert ours(soft_map, truth) == pytest.approx(wanted, abs=1e-6)


def test_the_kept_numbers_are_the_tools() -> None:
    pytest.importorskip("py_sod_metrics", reason="PySODMetrics is installed apart: its own limits")
    with np.load(reference.FILE) as kept:
        cases = zip(kept["soft_maps"], kept["truths"], kept["values"], strict=True)
        for soft_map, truth, values in cases:
            found = reference.of_the_tool(soft_map, truth)
            assert list(found.values()) == pytest.approx(values.tolist(), abs=1e-9)
