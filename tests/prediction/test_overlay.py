"""Overlays show each class where it is, in true proportions, with a legend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.prediction import PALETTE, class_colours, draw_overlay
from segweave.prediction.overlay import MOST_TILES, amounts
from tests.prediction.tiny import BINARY, OVERLAPPING, TARGET, volume_case


def count(picture, colour):
    """Pixels of exactly this colour: contours and the legend's square."""
    return int((np.asarray(picture) == ImageColor.getrgb(colour)).all(-1).sum())


def labels_of(case, box=(slice(4, 12), slice(3, 9)), value=1):
    labels = np.zeros((case.slices, *case.size), np.uint8)
    labels[(slice(None), *box)] = value
    return labels


def test_colours_of_a_target():
    assert class_colours(TARGET) == {1: PALETTE[0], 2: PALETTE[1]}
    own = TargetSpec(kind="binary", names=("polyp",), colours=("#00ff00",))
    assert class_colours(own) == {1: "#00ff00"}
    assert class_colours(BINARY) == {1: PALETTE[2]}
    assert class_colours(OVERLAPPING) == {0: PALETTE[0], 1: PALETTE[1]}


def test_a_class_is_outlined_in_its_colour():
    case = volume_case(slices=4)
    empty = draw_overlay(case, np.zeros((4, 18, 14), np.uint8), TARGET)
    drawn = draw_overlay(case, labels_of(case), TARGET)
    assert empty.size == drawn.size
    assert count(drawn, PALETTE[0]) > count(empty, PALETTE[0]) + 100
    assert count(drawn, PALETTE[1]) == count(empty, PALETTE[1])


def test_a_single_image_stands_beside_its_overlay():
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 30, 40)).astype(np.uint8)
    case = Case("a", "a", image)
    picture = np.asarray(draw_overlay(case, labels_of(case), BINARY))
    contour = (picture == ImageColor.getrgb(PALETTE[2])).all(-1)[38:-40]
    assert contour[:, contour.shape[1] // 2 :].any()
    assert not contour[:, : contour.shape[1] // 2 - 3].any()


@pytest.mark.parametrize("spacing", [(8.0, 1.0, 1.0), (8.0, 2.0, 1.0)])
def test_pixels_have_their_true_proportions(spacing):
    case = volume_case(slices=1, height=20, width=20, spacing=spacing)
    width, height = draw_overlay(case, labels_of(case), TARGET).size
    tile = (width - 2 * 12 - 6) / 2, height - 2 * 12 - 2 * 26 - 6
    assert tile[1] / tile[0] == pytest.approx(spacing[1] / spacing[2], rel=0.02)


def test_long_volumes_show_the_slices_that_matter():
    case = volume_case(slices=60)
    labels = np.zeros((60, 18, 14), np.uint8)
    labels[40:43, 5:9, 5:9] = 1
    few = draw_overlay(case, labels, TARGET)
    labels[:, 5:9, 5:9] = 1
    many = draw_overlay(case, labels, TARGET)
    assert few.size[0] * few.size[1] < many.size[0] * many.size[1]
    assert many.size[0] * many.size[1] < (MOST_TILES + 8) * 220 * 240


def test_amounts_are_ml_for_volumes_of_known_spacing_alone():
    case = volume_case(slices=2)
    assert amounts(case, labels_of(case), TARGET) == {"left": (96, None), "right": (0, None)}
    known = replace(case, spacing=(10.0, 2.0, 2.0))
    assert amounts(known, labels_of(known), TARGET)["left"] == (96, pytest.approx(3.84))
    overlapping = np.ones((2, 2, 18, 14), np.uint8)
    assert amounts(case, overlapping, OVERLAPPING)["cup"] == (2 * 18 * 14, None)


def test_constant_and_strange_images_can_be_drawn():
    for image in (np.zeros((1, 1, 5, 400), np.float64), np.full((2, 2, 30, 3), 7, np.int32)):
        case = Case("long name " * 40, "g", image, stack="space")
        picture = draw_overlay(case, np.ones((len(image), *case.size), np.uint8), TARGET)
        assert min(picture.size) > 50
