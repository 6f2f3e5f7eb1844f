"""Outlines of masks enclose exactly their pixels, whatever the rule by which they are filled."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from segweave.formats.contours import outlines


def crossings(polygon: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """For the centre of each pixel: lines of the polygon to its right, and its winding number."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    count, winding = np.zeros(shape, int), np.zeros(shape, int)
    for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if r0 != r1:
            crossed = (rows > min(r0, r1)) & (rows < max(r0, r1))
            at = c0 + (rows - r0) / (r1 - r0) * (c1 - c0)
            crossed &= at > columns
            count += crossed
            winding += crossed * (1 if r1 > r0 else -1)
    return count, winding


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for polygon in polygons:
        count, winding = crossings(polygon, shape)
        np.testing.assert_array_equal(count % 2 == 1, winding != 0)
        assert not (mask & (winding != 0)).any(), "polygons do not overlap"
        mask |= winding != 0
    return mask


def test_random_masks_come_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = (int(rng.integers(1, 11)), int(rng.integers(1, 11)))
        mask = rng.random(shape) < rng.random()
        np.testing.assert_array_equal(filled(outlines(mask), shape), mask)


def test_a_ring_in_a_ring_with_an_island() -> None:
    radius = np.hypot(*np.mgrid[-40:41, -40:41])
    mask = ((radius < 38) & (radius > 25)) | ((radius < 18) & (radius > 9)) | (radius < 4)
    polygons = outlines(mask)
    assert len(polygons) == 3, "a polygon per object, holes in it"
    np.testing.assert_array_equal(filled(polygons, mask.shape), mask)


def test_objects_that_touch_at_a_corner_are_apart() -> None:
    polygons = outlines(np.eye(3, dtype=bool))
    assert sorted(polygon.tolist() for polygon in polygons) == [
        [[k, k], [k, k + 1], [k + 1, k + 1], [k + 1, k]] for k in range(3)
    ]
    assert outlines(np.zeros((3, 3), bool)) == []


def test_another_program_fills_them_to_the_mask() -> None:
    """Pillow draws at eight times the size; what it draws along the line itself is at the edge."""
    rng = np.random.default_rng(1)
    mask = np.kron(rng.random((5, 6)) < 0.6, np.ones((3, 3))) > 0
    picture = Image.new("1", (mask.shape[1] * 8, mask.shape[0] * 8))
    for polygon in outlines(mask):
        ImageDraw.Draw(picture).polygon([(8 * c, 8 * r) for r, c in polygon.tolist()], fill=1)
    centres = np.asarray(picture)[4::8, 4::8]
    np.testing.assert_array_equal(centres, mask)
