"""A case refuses parts that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest

from segweave.data.case import Case, SourceGrid
from segweave.errors import InputError, UsageError

IMAGE = np.zeros((3, 1, 4, 5), np.float32)
AFFINE = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]], dtype=float)


def case(**changes):
    values = {"id": "a", "group": "a", "image": IMAGE, "stack": "space"} | changes
    return Case(**values)


def test_counts_and_size():
    whole = case(
        label=np.zeros((3, 4, 5), np.uint8),
        affine=AFFINE,
        spacing=(2.0, 1.0, 1.0),
        source_grid=SourceGrid((2, 1, 0), (False,) * 3, (5, 4, 3)),
        gaps=(2,),
    )
    assert (whole.slices, whole.size) == (3, (4, 5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": IMAGE[0]}, "slices, channels, height, width"),
        ({"image": IMAGE[:0]}, "slices, channels, height, width"),
        ({"label": np.zeros((3, 4, 4), np.uint8)}, r"\(3, 4, 5\)"),
        ({"label": np.zeros((3, 4, 5), np.int64)}, "uint8"),
        ({"instances": np.zeros((3, 4, 4), np.uint16)}, "instances"),
        ({"spacing": (1.0, 0.0, 1.0)}, "positive spacing"),
        ({"affine": AFFINE}, "spacing beside the affine"),
        ({"affine": AFFINE, "spacing": (1.0, 1.0, 1.0)}, "steps"),
        ({"affine": AFFINE * np.nan, "spacing": (2.0, 1.0, 1.0)}, "finite"),
        ({"source_grid": SourceGrid((0, 1, 2), (False,) * 3, (5, 4, 3))}, "source grid"),
        ({"gaps": (0,)}, "gaps"),
        ({"gaps": (3,)}, "gaps"),
        ({"stack": "single"}, "one slice"),
    ],
)
def test_parts_that_do_not_agree_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        case(**changes)


def test_an_unknown_stack_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean space"):
        case(stack="spce")


def test_overlapping_classes_have_an_axis_after_slices():
    assert case(label=np.zeros((3, 2, 4, 5), np.uint8)).label.shape == (3, 2, 4, 5)
