"""Distances by area: closed forms, and against surface-distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segweave.metrics.area import (
    area_distances,
    area_hausdorff95,
    area_normalised_surface_distance,
    element_areas,
)

volumes = arrays(np.bool_, (4, 5, 4))
spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


def test_elements_by_hand() -> None:
    flat = element_areas((2.0, 3.0))
    assert flat[0] == flat[15] == 0
    assert flat[0b0001] == flat[0b1110] == pytest.approx(math.hypot(1, 1.5))  # a corner cut off
    assert flat[0b0011] == pytest.approx(3)  # the upper row inside: a line along the columns
    assert flat[0b0101] == pytest.approx(2)
    assert flat[0b1001] == pytest.approx(2 * math.hypot(1, 1.5))
    solid = element_areas((1.0, 2.0, 4.0))
    assert solid[0b00001111] == pytest.approx(8)  # one layer of voxels: rows × columns
    corner = np.linalg.norm(np.cross([-0.5, 1, 0], [-0.5, 0, 2])) / 2
    assert solid[0b00000001] == solid[0b11111110] == pytest.approx(corner)
    assert solid[0b00010001] == pytest.approx(math.hypot(1, 2))  # an edge along the slices


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shifted_boxes_are_as_far_apart_as_their_shift(axis: int) -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[5:12, 5:12, 5:12] = True
    moved = np.roll(mask, 2, axis=axis)
    spacing = (3.0, 1.0, 0.5)
    d = area_distances(moved, mask, spacing, (1,))[1]
    assert d.hausdorff() == pytest.approx(2 * spacing[axis])
    assert d.normalised(2 * spacing[axis]) == 1
    assert d.prediction_areas.sum() == pytest.approx(d.reference_areas.sum())


@given(volumes, volumes, spacings)
@settings(max_examples=40, deadline=None)
def test_against_surface_distance(
    p: np.ndarray, r: np.ndarray, spacing: tuple[float, float, float]
) -> None:
    tool = pytest.importorskip("surface_distance")
    assume(p.any() and r.any())
    theirs = tool.compute_surface_distances(r, p, spacing)
    d = area_distances(p, r, spacing, (1,))[1]
    wanted = tool.compute_average_surface_distance(theirs)  # reference to prediction first
    assert d.averages() == pytest.approx((wanted[1], wanted[0]), abs=1e-6)
    for percent in (50, 100):
        ours = d.hausdorff(percent)
        around = [
            tool.compute_robust_hausdorff(theirs, q) for q in (percent - 1e-6, percent + 1e-6)
        ]
        assert any(ours == pytest.approx(other, abs=1e-6) for other in around)
    # No tie: at one, the tool's own rounding decides.
    tolerance = 1.7
    for distances in (theirs["distances_gt_to_pred"], theirs["distances_pred_to_gt"]):
        assume(not np.isclose(distances, tolerance, rtol=1e-8, atol=0).any())
    wanted = tool.compute_surface_dice_at_tolerance(theirs, tolerance)
    assert d.normalised(tolerance) == pytest.approx(wanted, abs=1e-6)


def test_images_against_surface_distance() -> None:
    tool = pytest.importorskip("surface_distance")
    generator = np.random.default_rng(0)
    for _ in range(20):
        p, r = generator.random((2, 9, 8)) < 0.4
        theirs = tool.compute_surface_distances(r, p, (0.7, 1.3))
        assert area_hausdorff95(p, r, (0.7, 1.3)) == pytest.approx(
            tool.compute_robust_hausdorff(theirs, 95), abs=1e-6
        )


def test_missing_on_a_side() -> None:
    some, none = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    some[1:3, 1:3] = True
    for pair in ((some, none), (none, some), (none, none)):
        assert math.isnan(area_hausdorff95(*pair, None))
        assert all(math.isnan(v) for v in area_distances(*pair, None, (1,))[1].averages())
    assert area_normalised_surface_distance(some, none, None) == 0
    assert math.isnan(area_normalised_surface_distance(none, none, None))


def test_classes_at_once() -> None:
    p, r = np.random.default_rng(3).integers(0, 3, (2, 6, 7)).astype(np.uint8)
    both = area_distances(p, r, None, (1, 2))
    for c in (1, 2):
        assert both[c].hausdorff(95) == area_hausdorff95(p == c, r == c, None)
