"""Masks whose palette or depth is a matter of the program that wrote them: they are read alike."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segweave.data.case import Case
from segweave.datasets._pictures import read_mask
from segweave.errors import InputError
from segweave.formats import read_case, read_label

MASK = np.zeros((20, 30), np.uint8)
MASK[5:9, 6:16] = 1
CASE = Case(id="a", group="a", image=np.zeros((1, 1, 20, 30), np.uint8), stack="single")


def _palette(indices: np.ndarray, colours: list[tuple[int, int, int]], path: Path) -> Path:
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette([value for colour in colours for value in colour])
    assert picture.mode == "P"
    picture.save(path)
    return path


@given(
    black=st.integers(0, 15), white=st.integers(0, 15), rest=st.sampled_from(["grey", "colours"]),
    ending=st.sampled_from([".png", ".bmp", ".tif"]),
)  # fmt: skip
def test_black_and_white_are_background_and_foreground_at_any_index(
    tmp_path_factory: pytest.TempPathFactory, black: int, white: int, rest: str, ending: str
) -> None:
    if black == white:
        return
    colours = [(9, 9, 9) if rest == "grey" else (200, 30, k) for k in range(16)]
    colours[black], colours[white] = (0, 0, 0), (255, 255, 255)
    path = tmp_path_factory.mktemp("palette") / f"a{ending}"
    _palette(np.where(MASK, white, black), colours, path)
    np.testing.assert_array_equal(read_label(path, CASE)[0], MASK)


@pytest.mark.parametrize("how", ["quantize", "adaptive", "1-bit png", "1-bit bmp", "1-bit tiff"])
def test_what_programs_make_of_a_black_and_white_mask(tmp_path: Path, how: str) -> None:
    picture = Image.fromarray(MASK * 255)
    made: dict[str, Any] = {
        "quantize": lambda: picture.convert("RGB").quantize(2).save(tmp_path / "a.png"),
        "adaptive": lambda: picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(
            tmp_path / "a.png"
        ),
        "1-bit png": lambda: picture.convert("1").save(tmp_path / "a.png"),
        "1-bit bmp": lambda: picture.convert("1").save(tmp_path / "a.bmp"),
        "1-bit tiff": lambda: picture.convert("1").save(tmp_path / "a.tif"),
    }
    made[how]()
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(read_label(path, CASE)[0], MASK)


def test_a_palette_of_greys_is_the_grey_mask_that_it_shows(tmp_path: Path) -> None:
    colours = [(255, 255, 255), (0, 0, 0), (120, 120, 120)]
    path = _palette(np.where(MASK, 2, 1), colours, tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(path, CASE)[0], MASK * 120)


def test_a_palette_of_colours_holds_class_ids(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (153, 153, 153)]
    for id in (1, 2, 3):
        path = _palette(MASK * id, colours, tmp_path / f"{id}.png")
        np.testing.assert_array_equal(read_label(path, CASE)[0], MASK * id)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_masks_of_16_bits(tmp_path: Path, white: int) -> None:
    Image.fromarray(MASK.astype(np.uint16) * white).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", CASE)[0], MASK)


def test_ids_above_255_are_named_with_what_to_do(tmp_path: Path) -> None:
    Image.fromarray(MASK.astype(np.uint16) * 645 + 205).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"2 different values from 205 to 850\n.*1, 2, 3"):
        read_label(tmp_path / "a.png", CASE)


def test_the_first_picture_of_a_phone_is_read_and_pages_are_refused(tmp_path: Path) -> None:
    first = Image.fromarray(np.full((20, 30, 3), 90, np.uint8))
    others = [first.resize((10, 8))]
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=others)
    assert read_case(tmp_path / "a.jpg").image.shape == (1, 3, 20, 30)
    page = Image.fromarray(np.zeros((20, 30), np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page.copy()])
    with pytest.raises(InputError, match="2 pages"):
        read_case(tmp_path / "a.tif")


def test_a_tiff_of_samples_that_are_not_read_is_not_called_damaged(tmp_path: Path) -> None:
    rows = [(256, 4, 1, 4), (257, 4, 1, 3), (258, 3, 1, 64), (259, 3, 1, 1), (262, 3, 1, 1)]
    rows += [(273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, 3), (279, 4, 1, 96), (339, 3, 1, 3)]
    content = b"II*\0" + struct.pack("<IH", 8, len(rows))
    content += b"".join(struct.pack("<HHII", *row) for row in rows) + bytes(4)
    path = tmp_path / "a.tif"
    path.write_bytes(content.ljust(200, b"\0") + np.zeros((3, 4)).tobytes())
    with pytest.raises(InputError, match="64-bit floating-point") as caught:
        read_case(path)
    assert caught.value.kind == "unsupported"
    path.write_bytes(content[:30])
    with pytest.raises(InputError) as caught:
        read_case(path)
    assert caught.value.kind == "damaged"


def _white_is_zero(mask: np.ndarray, path: Path) -> Path:
    picture = Image.fromarray(mask)
    picture.save(path, tiffinfo={262: 0})
    with Image.open(path) as stored:
        assert stored.tag_v2[262] == 0
    return path


@pytest.mark.parametrize("mask", [MASK.astype(bool), MASK * 255, MASK * 3], ids=["bool", "8", "id"])
@pytest.mark.parametrize("ending", [".tif", ".png"])  # the content counts
def test_a_tiff_mask_whose_0_is_white_is_refused(
    tmp_path: Path, mask: np.ndarray, ending: str
) -> None:
    path = _white_is_zero(mask, tmp_path / "a.tif").rename(tmp_path / f"a{ending}")
    with pytest.raises(InputError, match="MinIsWhite") as caught:
        read_label(path, CASE)
    assert caught.value.kind == "labels"
    assert "mask_threshold" in str(caught.value)
    if ending == ".tif":
        with pytest.raises(InputError, match="MinIsWhite"):
            read_mask(path)


def test_what_a_tiff_shows_counts_where_a_threshold_says_that_white_is_foreground(
    tmp_path: Path,
) -> None:
    for name, mask in (("a", MASK.astype(bool)), ("b", MASK * 255)):
        path = _white_is_zero(mask, tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(read_label(path, CASE, threshold=127)[0], MASK)
        shown = read_case(path).image[0, 0]
        np.testing.assert_array_equal(shown > 0, MASK > 0)  # an image is what it shows


def test_compressed_1_bit_tiffs_are_read(tmp_path: Path) -> None:
    Image.fromarray(MASK.astype(bool)).save(tmp_path / "a.tif", compression="group4")
    np.testing.assert_array_equal(read_label(tmp_path / "a.tif", CASE)[0], MASK)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), MASK)
