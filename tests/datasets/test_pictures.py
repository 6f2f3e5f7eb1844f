from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segweave.checking import check
from segweave.datasets._pictures import read_mask
from segweave.errors import InputError
from segweave.phantoms.polyp import write_polyps
from tests.datasets.pictures import read, write


def _photo(mask: Any) -> Any:
    """Something like a photo: grey everywhere."""
    return np.random.default_rng(0).integers(40, 200, mask.shape).astype(np.uint8)


def _block(mask: Any, value: int) -> Any:
    other = mask.copy()
    other[2:14, 2:14] = value
    return other


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize(
    ("spoilt", "found"),
    [
        (lambda mask: _block(mask, 128), "an area of the value"),
        (lambda mask: _block(mask, 100), "an area of the value"),
        (_photo, "of the pixels grey"),
        (lambda mask: np.dstack([mask, mask[::-1], mask * 0]), "colours"),
    ],
)
def test_what_is_no_mask_of_two_values_is_refused(
    tmp_path: Path, spoilt: Any, found: str, ending: str
) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[20:32, 16:40] = 255
    path = write(tmp_path / f"mask.{ending}", spoilt(mask))
    with pytest.raises(InputError, match=found):
        read_mask(path)


@given(
    st.integers(0, 11), st.integers(0, 11), st.integers(3, 30), st.integers(3, 30),
    st.sampled_from([0, 1, 2, 4]), st.sampled_from(["png", "jpg"]),
)  # fmt: skip
def test_soft_edges_and_noise_are_no_third_value(
    tmp_path_factory: pytest.TempPathFactory,
    top: int,
    left: int,
    height: int,
    width: int,
    soft: int,
    ending: str,
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[top + 8 : top + 8 + height, left + 8 : left + 8 + width] = 1
    seen = Image.fromarray(mask * np.uint8(255))
    if soft:
        # As a mask looks that was made smaller and enlarged again.
        seen = seen.resize((64 // soft * 2, 64 // soft * 2)).resize((64, 64))
    path = write(tmp_path_factory.mktemp("m") / f"mask.{ending}", np.asarray(seen), quality=90)
    if (np.asarray(seen) > 127).any():
        read = read_mask(path)
        assert np.count_nonzero(read != (np.asarray(seen) > 127)) <= 2 * (height + width)


def test_ids_and_an_ignored_value_are_no_mask_of_two_values(tmp_path: Path) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[20:32, 16:40], mask[20, 16:40] = 1, 255
    with pytest.raises(InputError, match="the ids 0, 1 and 255"):
        read_mask(write(tmp_path / "mask.png", mask))


def test_a_mask_that_is_all_foreground_is_told(tmp_path: Path) -> None:
    folder = write_polyps(tmp_path / "c", 2, 4, size=(30, 40))
    mask = sorted((folder / "Ground Truth").iterdir())[3]
    values = read(mask)
    write(mask, np.full_like(values, 255))
    full = [p for p in check(folder).problems if p.kind == "full-label"]
    assert [(p.severity, p.file) for p in full] == [("warning", mask)]
