"""Volumes, areas, diameters and objects against counting, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.prediction.measurements import as_csv, longest_diameter, measure

from .tiny import OVERLAPPING, TARGET


def case_of(shape, stack="space", spacing=(2.0, 1.0, 0.5)):
    return Case("c", "c", np.zeros((shape[0], 1, *shape[1:])), stack=stack, spacing=spacing)


def test_a_volume_in_millimetres():
    labels = np.zeros((4, 10, 12), np.uint8)
    labels[1, 2:4, 3:9] = 1
    labels[2, 2:4, 3:9] = 1
    labels[2, 8, 2:10] = 1
    left, right = measure(case_of(labels.shape), labels, TARGET)
    assert left.pixels == 32
    assert left.volume_ml == pytest.approx(0.032)
    assert (left.largest_area, left.area_slice) == (10.0, 3)
    assert (left.largest_diameter, left.diameter_slice) == (pytest.approx(4.0), 3)
    assert (left.objects, left.in_mm) == (2, True)
    assert (right.pixels, right.objects, right.area_slice) == (0, 0, None)
    assert right.largest_diameter == 0


def test_a_picture_in_pixels_and_overlapping_classes():
    labels = np.zeros((1, 2, 10, 12), np.uint8)
    labels[0, :, 4, 2:9] = 1
    disc, cup = measure(case_of((1, 10, 12), "single", None), labels, OVERLAPPING)
    assert (disc.volume_ml, disc.largest_area, disc.largest_diameter) == (None, 7, 7)
    assert (cup.pixels, cup.in_mm) == (7, False)


def test_the_table_names_units_and_computes_nothing():
    target = TargetSpec(names=("background", "=1+1"))
    rows = as_csv(measure(case_of((1, 2, 2), "single", None), np.ones((1, 2, 2), np.uint8), target))
    header, row = rows.splitlines()
    assert header.startswith("class,label,pixels,volume_ml")
    assert row.startswith("'=1+1,1,4,,4.0,px,1,")
    assert row.endswith('"research software, not a medical device"')


@settings(max_examples=40)
@given(arrays(np.bool_, st.tuples(*[st.integers(1, 9)] * 2)), st.sampled_from([(1, 1), (0.5, 2)]))
def test_the_diameter_is_that_of_scikit_image(mask, spacing):
    measurement = pytest.importorskip("skimage.measure")
    found = longest_diameter(mask, spacing)
    numbers = measurement.label(mask, connectivity=2)
    longest = 0.0
    for one in measurement.regionprops(numbers):
        # Its feret_diameter_max measures the same contour, but in pixels alone.
        padded = np.pad(one.image, 2)
        points = np.concatenate(measurement.find_contours(padded, 0.5)) * spacing
        steps = points[:, None] - points[None]
        longest = max(longest, np.sqrt((steps**2).sum(-1)).max())
    assert found == pytest.approx(longest)
