from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from segweave.checking import check
from segweave.datasets._pictures import read_mask
from segweave.errors import InputError
from segweave.formats import read_label_case
from segweave.formats.pictures import two_values
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
    st.sampled_from([0, 1, 2, 4]), st.sampled_from(["png", "jpg"]), st.sampled_from([40, 75, 90]),
)  # fmt: skip
# Squares whose JPEG holds no noise but the value 1.
@example(0, 0, 8, 9, 0, "jpg", 90)
@example(0, 0, 9, 8, 0, "jpg", 90)
@example(8, 8, 8, 9, 0, "jpg", 90)
def test_soft_edges_and_noise_are_no_third_value(
    tmp_path_factory: pytest.TempPathFactory,
    top: int,
    left: int,
    height: int,
    width: int,
    soft: int,
    ending: str,
    quality: int,
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[top + 8 : top + 8 + height, left + 8 : left + 8 + width] = 1
    seen = Image.fromarray(mask * np.uint8(255))
    if soft:
        # As a mask looks that was made smaller and enlarged again.
        seen = seen.resize((64 // soft * 2, 64 // soft * 2)).resize((64, 64))
    path = write(tmp_path_factory.mktemp("m") / f"mask.{ending}", np.asarray(seen), quality=quality)
    if (np.asarray(seen) > 127).any():
        read = read_mask(path)
        assert np.count_nonzero(read != (np.asarray(seen) > 127)) <= 2 * (height + width)
        if ending == "jpg":
            label = read_label_case(path).label
            assert label is not None
            np.testing.assert_array_equal(label[0], read)


@given(st.integers(1, 31), st.integers(0, 31), st.integers(0, 47))
def test_noise_of_one_value_is_no_id_in_a_file_with_loss(
    noise: int, below: int, column: int
) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[8:32, 8:40] = 255
    noisy = mask.copy()
    noisy[0, column], noisy[8, 8 + column % 32] = noise, 255 - below
    read = two_values(noisy, Path("mask"), "reading", lossy=True)
    np.testing.assert_array_equal(read, mask // 255)


def test_loss_is_seen_in_the_content_not_in_the_name(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:16, 8:17] = 255
    write(tmp_path / "mask.jpg", mask, quality=90).rename(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask // 255)
    packed = write(tmp_path / "mask.tif", mask, compression="jpeg", quality=90)
    np.testing.assert_array_equal(read_mask(packed), mask // 255)


@pytest.mark.parametrize("highest", [1, 2, 5])
def test_a_file_with_loss_holds_no_class_ids(tmp_path: Path, highest: int) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:40] = highest
    path = write(tmp_path / "mask.jpg", mask, quality=95)
    for reader in (read_mask, read_label_case):
        with pytest.raises(InputError, match="save class ids as PNG") as caught:
            reader(path)
        assert caught.value.kind == "labels"


def test_ids_and_an_ignored_value_are_no_mask_of_two_values(tmp_path: Path) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[20:32, 16:40], mask[20, 16:40] = 1, 255
    with pytest.raises(InputError, match="the ids 0, 1 and 255"):
        read_mask(write(tmp_path / "mask.png", mask))


def test_a_mask_that_is_all_foreground_is_reported(tmp_path: Path) -> None:
    folder = write_polyps(tmp_path / "c", 2, 4, size=(30, 40))
    mask = sorted((folder / "Ground Truth").iterdir())[3]
    values = read(mask)
    write(mask, np.full_like(values, 255))
    full = [p for p in check(folder).problems if p.kind == "full-label"]
    assert [(p.severity, p.file) for p in full] == [("warning", mask)]
