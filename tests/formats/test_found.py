"""What is found in a folder: links, DICOM by its content, label files, what is not read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.errors import InputError
from segweave.formats import case_name, find_images, label_name, read_case
from segweave.formats.files import visible
from tests.formats.test_dicom import VOLUME, write_series, write_slice


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return path


def test_links_to_folders_are_followed_every_folder_once(tmp_path: Path) -> None:
    _picture(tmp_path / "data" / "p0" / "a.png")
    _picture(tmp_path / "real" / "p1" / "b.png")
    (tmp_path / "data" / "p1").symlink_to("../real/p1")
    (tmp_path / "data" / "p0" / "round").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "p2").symlink_to("p1")
    (tmp_path / "data" / "lost").symlink_to("nowhere")
    found = find_images(tmp_path / "data")
    assert [path.name for path in found] == ["a.png", "b.png"]
    assert len([path for path in visible(tmp_path / "data") if path.suffix == ".png"]) == 2


def test_folders_deeper_than_the_machine_can_name_are_refused(tmp_path: Path) -> None:
    start, depth = os.getcwd(), 1200
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("deeper")
            os.chdir("deeper")
        os.chdir(start)
        with pytest.raises(InputError, match=r"may be read|at least one image"):
            find_images(tmp_path)
    finally:
        # What removes temporary folders does it by recursion.
        subprocess.run(["rm", "-rf", str(tmp_path / "deeper")], check=True)
        os.chdir(start)


@pytest.mark.parametrize("root", ["parent", "series", "slash", "dot"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_folder_that_is_a_series_is_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, beside: bool
) -> None:
    series = write_series(tmp_path / "c0")
    if beside:
        _picture(series / "overview.png")
    monkeypatch.chdir(series)
    path = {"parent": str(tmp_path), "series": str(series), "slash": f"{series}/", "dot": "."}[root]
    found = find_images(path)
    assert [case_name(image) for image in found] == ["c0"] + ["overview"] * beside
    assert label_name(found[0]) == "c0.nii.gz"


@pytest.mark.parametrize("ending", [".IMA", ".ima", ".img", ".dicom", ".1", ".DCM", ""])
@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("half", [False, True])
def test_a_series_is_found_by_its_content(
    tmp_path: Path, ending: str, preamble: bool, half: bool
) -> None:
    series = write_series(tmp_path / "c0")
    for k, path in enumerate(sorted(series.iterdir())):
        if not preamble:
            path.write_bytes(path.read_bytes()[132:])
        if not half or k % 2:
            path.rename(path.with_name(path.stem + ending))
    (series / "notes.txt").write_text("a text of the study, longer than a header" * 9)
    (series / "empty.img").write_bytes(b"")
    (image,) = find_images(tmp_path)
    np.testing.assert_array_equal(read_case(image).image[:, 0], VOLUME)


@pytest.mark.parametrize("ending", [".dcm", ".IMA", ""])
def test_pictures_without_a_position_are_images_of_their_own(tmp_path: Path, ending: str) -> None:
    for k in range(3):
        write_slice(
            tmp_path / f"x{k}{ending}", VOLUME[k], Modality="DX", SeriesInstanceUID=f"1.2.{k}"
        )
    found = find_images(tmp_path)
    assert [path.name for path in found] == [f"x{k}{ending}" for k in range(3)]
    for k, path in enumerate(found):
        case = read_case(path)
        np.testing.assert_array_equal(case.image[0, 0], VOLUME[k])
        assert label_name(path) == f"x{k}.png"
    assert label_name(write_series(tmp_path / "ct")) == "ct.nii.gz"


def test_a_folder_without_images_names_what_is_there(tmp_path: Path) -> None:
    for name in ("a.mhd", "a.raw", "b.mhd", "b.raw", "b.gif"):
        (tmp_path / name).write_bytes(b"x" * 200)
    with pytest.raises(InputError, match=r"none; files: 2 of \.mhd, 2 of \.raw") as caught:
        find_images(tmp_path)
    assert ".mha" in str(caught.value.remedy)
    with pytest.raises(InputError, match=r"a file that ends in \.mhd") as caught:
        find_images(tmp_path / "a.mhd")
    assert "WriteImage" in str(caught.value.remedy)


def test_what_predict_wrote_is_no_image_below_but_is_one_when_asked_for(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    _picture(tmp_path / "out" / "a.png")
    (tmp_path / "out" / "predictions.json").write_text("{}")
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    assert find_images(tmp_path / "out") == [tmp_path / "out" / "a.png"]


@pytest.mark.parametrize("name", ["s0.seg.png", "s0_seg.png", "s0_GT.png"])
def test_a_label_beside_its_image_is_no_image(tmp_path: Path, name: str) -> None:
    _picture(tmp_path / "s0.png")
    _picture(tmp_path / name)
    assert find_images(tmp_path) == [tmp_path / "s0.png"]
