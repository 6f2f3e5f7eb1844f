"""Axes of a case by anatomical direction: all 48 orientations, oblique ones, ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from segweave.data.case import (
    case_affine,
    farthest_apart,
    source_grid,
    spacing_of,
    with_spacing,
)

ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def turned(affine, shape, axes, flips):
    """The affine and shape of the same volume stored with other axes."""
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        move[old, new] = -1 if flip else 1
        move[old, 3] = shape[old] - 1 if flip else 0
    return affine @ move, tuple(shape[a] for a in axes)


def affine_of(spacing, rotation=None, origin=(7.0, -3.0, 11.0)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation.as_matrix()) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def directions(affine):
    """Unit directions of (slice, row, column) in left, posterior, superior."""
    own = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return own * np.array([-1, -1, 1])[:, None]


@pytest.mark.parametrize(
    ("spacing", "slice_way", "row_way", "column_way"),
    [
        ((1.5, 1.5, 8.0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),  # axial
        ((1.5, 8.0, 1.5), (0, 1, 0), (0, 0, -1), (1, 0, 0)),  # coronal: head up
        ((8.0, 1.5, 1.5), (1, 0, 0), (0, 0, -1), (0, 1, 0)),  # sagittal: head up
        ((2.0, 2.0, 2.0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),  # a tie of all three
        ((2.0, 1.0, 2.0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),  # a tie of two
        ((2.0, 2.0, 1.0), (0, 1, 0), (0, 0, -1), (1, 0, 0)),  # a tie without superior
    ],
)
@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_axes_run_as_the_rule_says(spacing, slice_way, row_way, column_way, axes, flips):
    affine, shape = turned(affine_of(spacing), (4, 5, 6), axes, flips)
    grid = source_grid(affine, shape)
    own = case_affine(affine, grid)
    np.testing.assert_allclose(
        directions(own), np.array([slice_way, row_way, column_way]).T, atol=1e-12
    )


OBLIQUE = [
    Rotation.from_euler("xyz", (10, 20, 30), degrees=True),
    Rotation.from_euler("xyz", (-35, 50, 80), degrees=True),
    Rotation.from_euler("z", 45, degrees=True),
    Rotation.from_euler("x", 45, degrees=True),
    Rotation.from_euler("y", 45, degrees=True),
]


@pytest.mark.parametrize("spacing", [(1.25, 1.25, 8.0), (1.0, 1.0, 1.0), (1.0, 3.0, 2.0)])
@pytest.mark.parametrize("rotation", OBLIQUE, ids=range(len(OBLIQUE)))
def test_a_case_does_not_depend_on_how_its_file_is_turned(spacing, rotation):
    affine = affine_of(spacing, rotation)
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    first = source_grid(affine, volume.shape)
    for axes, flips in ORIENTATIONS:
        other_affine, shape = turned(affine, volume.shape, axes, flips)
        stored = np.transpose(volume, axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
        grid = source_grid(other_affine, shape)
        np.testing.assert_array_equal(grid.to_case(stored), first.to_case(volume))
        np.testing.assert_allclose(
            case_affine(other_affine, grid), case_affine(affine, first), atol=1e-9
        )


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.3, 12)] * 3),
    st.sampled_from(ORIENTATIONS),
)
def test_voxels_stay_where_they_are_and_come_back(angles, spacing, orientation):
    affine = affine_of(spacing, Rotation.from_euler("xyz", angles, degrees=True))
    affine, shape = turned(affine, (3, 4, 5), *orientation)
    grid = source_grid(affine, shape)
    volume = np.arange(60).reshape(shape)
    case = grid.to_case(volume)
    np.testing.assert_array_equal(grid.to_file(case), volume)
    own = case_affine(affine, grid)
    for place in ((0, 0, 0), (1, 2, 1), tuple(n - 1 for n in case.shape)):
        index = np.argwhere(volume == case[place])[0]
        np.testing.assert_allclose(own @ [*place, 1], affine @ [*index, 1], atol=1e-9)
    assert spacing_of(own)[0] == pytest.approx(max(spacing), rel=2e-3)
    way = directions(own)
    strongest = int(np.argmax(np.abs(way[:, 0])))
    if np.sort(np.abs(way[:, 0]))[-2] < abs(way[strongest, 0]) - 0.01:
        assert way[strongest, 0] > 0
    if strongest != 2 and np.sort(np.abs(way[:, 0]))[-2] < abs(way[strongest, 0]) - 0.01:
        assert way[2, 1] < 0, "rows run down from the head"


def test_a_volume_with_one_slice_keeps_it_as_the_slice():
    grid = source_grid(affine_of((2.0, 2.0, 1.0)), (20, 30, 1))
    assert grid.axes == (2, 1, 0)


def test_spacing_is_rebuilt_along_the_same_directions():
    affine = affine_of((1.0, 1.0, 1.0), OBLIQUE[0])
    rebuilt = with_spacing(affine, (1.5, 1.5, 10.0))
    assert spacing_of(rebuilt) == pytest.approx((1.5, 1.5, 10.0))
    np.testing.assert_allclose(directions(rebuilt), directions(affine))
    np.testing.assert_array_equal(rebuilt[:3, 3], affine[:3, 3])


def test_farthest_apart_is_the_largest_corner_distance():
    affine = affine_of((1.0, 1.0, 1.0))
    other = affine_of((1.0, 1.0, 1.1))
    assert farthest_apart(affine, other, (5, 5, 11)) == pytest.approx(1.0)
