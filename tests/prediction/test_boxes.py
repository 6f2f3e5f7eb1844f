"""Boxes: what may be given, where they lie on the network's grid, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segweave.data.boxes import boxes_of, mask_box, network_boxes, reference_boxes
from segweave.data.case import Case
from segweave.data.specs import InputSpec
from segweave.errors import InputError, UsageError
from segweave.prediction import read_boxes
from segweave.prediction.box_file import boxes_for
from segweave.prediction.flips import boxes_of_flips, with_flips

BOX = (2.0, 4.0, 9.0, 7.0)


def case(slices: int = 3, size: tuple[int, int] = (20, 40)) -> Case:
    label = np.zeros((slices, *size), np.uint8)
    label[1, 4:8, 2:10] = 2
    label[1, 0, 0] = 255
    return Case("c", "c", np.zeros((slices, 1, *size), np.uint8), label=label, stack="space")


def test_one_box_is_that_of_every_slice() -> None:
    assert (boxes_of(BOX, case()) == BOX).all()
    some = boxes_of({2: BOX}, case())
    assert np.isnan(some[:2]).all()
    assert (some[2] == BOX).all()
    assert np.array_equal(boxes_of(some, case()), some, equal_nan=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1, 2, 3), "X0 Y0 X1 Y1"),
        ((9, 4, 2, 7), "X0 ≤ X1"),
        ((-1, 4, 2, 7), "counted from 0"),
        ((0, 0, float("inf"), 7), "a box"),
        ((2, 4, 9, 30), "40 columns .x. by 20 rows"),
        ({3: BOX}, "slice from 0 to 2"),
        (np.zeros((2, 4)), "3 × 4"),
    ],
)
def test_what_is_no_box_is_refused(given: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        boxes_of(given, case())  # type: ignore[arg-type]


def test_the_reference_gives_the_box_around_its_foreground() -> None:
    boxes = reference_boxes(case(), ignored=255)
    assert np.isnan(boxes[[0, 2]]).all()
    assert (boxes[1] == BOX).all()
    assert (reference_boxes(case())[1] == (0, 0, 9, 7)).all()
    with pytest.raises(InputError, match="a label"):
        reference_boxes(Case("c", "c", np.zeros((1, 1, 4, 4), np.uint8), stack="single"))


def test_boxes_are_scaled_and_moved_as_the_image_is() -> None:
    boxes = boxes_of({1: BOX}, case())
    stretched = network_boxes(boxes, case(), InputSpec(size=(40, 40)))
    # Neighbours get the box of the nearest slice that has one.
    assert (stretched == (2, 8, 9, 14)).all()
    padded = network_boxes(boxes, case(), InputSpec(size=(80, 80), fit="pad"))
    assert (padded == (4, 28, 18, 34)).all()


@pytest.mark.parametrize("flips", ["none", "rows", "columns", "both"])
def test_boxes_are_mirrored_with_the_image(flips: str) -> None:
    mask = np.zeros((20, 40), bool)
    mask[4:8, 2:10] = True
    views = with_flips(torch.from_numpy(mask)[None, None], flips)  # type: ignore[arg-type]
    boxes = boxes_of_flips(torch.tensor(BOX), (20, 40), flips)  # type: ignore[arg-type]
    assert [mask_box(view[0].numpy()).tolist() for view in views] == boxes.tolist()


def test_a_file_of_boxes(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("case, slice, x0, y0, x1, y1\na.png,,2,4,9,7\nv,0,1,1,5,5\nv,2,2,2,6,6\n")
    boxes = read_boxes(file)
    assert boxes == {"a.png": BOX, "v": {0: (1, 1, 5, 5), 2: (2, 2, 6, 6)}}
    assert boxes_for(boxes, ("a.png", "a")) == BOX
    assert boxes_for(boxes, ("v.nii.gz", "v")) == boxes["v"]
    assert boxes_for(boxes, ("b.png", "b")) is None
    assert boxes_for(BOX, ("b.png", "b")) == BOX


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x0,y0,x1,y1\na,1,2,3,4\n", "the columns case"),
        ("case,x0,y0,x1,y1\na,3,2,1,4\n", "line 2"),
        ("case,x0,y0,x1,y1\na,1,2,3\n", "line 2"),
        ("case,x0,y0,x1,y1\n,1,2,3,4\n", "the name of an image"),
        ("case,slice,x0,y0,x1,y1\na,b,1,2,3,4\n", "a slice number"),
        ("case,x0,y0,x1,y1\na,1,2,3,4\na,1,2,3,4\n", "line 3"),
        ("case,slice,x0,y0,x1,y1\na,0,1,2,3,4\na,,1,2,3,4\n", "one box for a"),
    ],
)
def test_wrong_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_boxes(file)
    with pytest.raises(InputError, match=r"missing\.csv"):
        read_boxes(tmp_path / "missing.csv")
