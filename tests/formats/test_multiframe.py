"""Enhanced multi-frame files are read as a classic series is, and have the same objects."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats import find_images, label_name, read_case, write_label
from segweave.formats.dicom_source import Origin
from tests.formats.enhanced import MR, item, write_enhanced
from tests.formats.series_of import PLACES, UIDS, VOLUME, affine_of, write_placed
from tests.formats.test_dicom_seg import by_dcmqi, in_series
from tests.formats.test_rtstruct import filled
from tests.programs import program

TARGET = TargetSpec(names=("background", "liver", "spleen"))


def refused(path: Path, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        read_case(path)
    text = str(caught.value)
    assert all(word in text for word in words), text
    return text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_file_of_frames_is_the_series_of_its_slices(
    tmp_path: Path, place: str, shared: bool
) -> None:
    write_enhanced(tmp_path / "e.dcm", place, shared=shared)
    classic = read_case(write_placed(tmp_path / "ct", place))
    enhanced = read_case(tmp_path / "e.dcm")
    np.testing.assert_array_equal(enhanced.image, classic.image)
    assert enhanced.affine is not None
    np.testing.assert_allclose(enhanced.affine, classic.affine, atol=1e-6)
    assert enhanced.source_grid == classic.source_grid
    assert (enhanced.stack, label_name(tmp_path / "e.dcm")) == ("space", "e.nii.gz")
    write_enhanced(tmp_path / "f.dcm", place)
    images = [tmp_path / "ct", tmp_path / "e.dcm", tmp_path / "f.dcm"]
    assert find_images(tmp_path) == images, "each file is an image"


def test_values_of_each_frame(tmp_path: Path) -> None:
    order = [4, 2, 0, 1, 3]
    scales = [(1, -1024), (2, -1000), (1, 0), (1, -1024), (3, 5)]
    write_enhanced(tmp_path / "e.dcm", order=order, scales=scales)
    image = read_case(tmp_path / "e.dcm").image[:, 0]
    for (slope, intercept), k in zip(scales, order, strict=True):
        np.testing.assert_array_equal(image[k], VOLUME[k].astype(int) * slope + intercept)
    world = item(RealWorldValueSlope=0.5, RealWorldValueIntercept=-2.0)
    group = {"RealWorldValueMappingSequence": world}
    write_enhanced(tmp_path / "m.dcm", sop_class=MR, Modality="MR", frames=[group] * 5)
    np.testing.assert_allclose(read_case(tmp_path / "m.dcm").image[:, 0], VOLUME * 0.5 - 2)
    data = pydicom.dcmread(tmp_path / "m.dcm")
    for one in data.PerFrameFunctionalGroupsSequence:
        one.RealWorldValueMappingSequence = [world, world]
    data.save_as(tmp_path / "m.dcm")
    refused(tmp_path / "m.dcm", "2 mappings to real-world values in frame")


def test_one_frame(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "e.dcm", "oblique", VOLUME[:1], order=[0])
    case = read_case(tmp_path / "e.dcm")
    classic = read_case(write_placed(tmp_path / "ct", "oblique", VOLUME[:1]))
    assert (case.slices, case.spacing) == (1, pytest.approx(classic.spacing))
    np.testing.assert_array_equal(case.image, classic.image)


def diffusion(value: float) -> dict[str, Any]:
    return {"MRDiffusionSequence": item(DiffusionBValue=value)}


def temporal(value: int) -> dict[str, Any]:
    return {"FrameContentSequence": item(TemporalPositionIndex=value)}


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([diffusion(b) for b in (0.0, 500.0) for _ in range(5)], ("b-value 0, 500",)),
        ([temporal(t) for t in (1, 2) for _ in range(5)], ("time 1, 2",)),
        ([{}] * 10, ("2 images at each of 5 positions",)),
    ],
)
def test_several_images_of_a_slice_are_refused(
    tmp_path: Path, frames: Any, words: tuple[str, ...]
) -> None:
    order = [0, 1, 2, 3, 4] * 2
    write_enhanced(tmp_path / "e.dcm", sop_class=MR, order=order, frames=frames)
    refused(tmp_path / "e.dcm", "2 images at each of 5 positions", *words, "dcm2niix -o FOLDER")


def test_several_stacks_are_refused(tmp_path: Path) -> None:
    frames = [{"FrameContentSequence": item(StackID=str(1 + k // 3))} for k in range(5)]
    write_enhanced(tmp_path / "e.dcm", frames=frames)
    refused(tmp_path / "e.dcm", "2 stacks: 3 frames in stack 1, 2 frames in stack 2", "choose one")


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([0, 2.5, 5, 10, 12.5], ("1 missing slice: 5 mm between slice 3 (frame 3) and slice 4",)),
        ([0, 2.5, 5, 5, 7.5], ("1 doubled slices: frame 3 and frame 4", "5 mm from the first")),
        ([0, 2.5, 5, 6, 7], ("uneven steps",)),
    ],
)
def test_frames_are_checked_as_slices_are(tmp_path: Path, positions: Any, words: Any) -> None:
    write_enhanced(tmp_path / "e.dcm", order=range(5), positions=positions)
    refused(tmp_path / "e.dcm", *words)


def test_a_tilted_gantry_is_named(tmp_path: Path) -> None:
    from tests.formats.test_dicom import write_slice

    for k in range(5):
        write_slice(tmp_path / "ct" / f"{k}.dcm", VOLUME[k], (-10, -20 + 0.7 * k, 100 + 2.5 * k))
    refused(tmp_path / "ct", "gantry tilt of 15.6°", "0.7 mm beside", "2.8 mm over 5", "dcm2niix")


def test_films_segmentations_and_damaged_groups_are_refused(tmp_path: Path) -> None:
    data = write_enhanced(tmp_path / "e.dcm")
    del data.PerFrameFunctionalGroupsSequence[2]
    data.save_as(tmp_path / "e.dcm")
    refused(tmp_path / "e.dcm", "a description of each of 5 frames", "4 of them")
    del data.PerFrameFunctionalGroupsSequence
    data.save_as(tmp_path / "e.dcm")
    refused(tmp_path / "e.dcm", "5 frames in one file without positions", "film")
    case = read_case(write_placed(tmp_path / "ct"))
    labels = (case.image[:, 0] > 0).astype(np.uint8)
    write_label(labels, case, tmp_path / "s.seg.dcm", target=TARGET)
    refused(tmp_path / "s.seg.dcm", "a segmentation of one", "the images that it was made from")


@pytest.mark.parametrize("place", ["reversed", "oblique"])
def test_objects_refer_to_its_frames(tmp_path: Path, place: str) -> None:
    write_enhanced(tmp_path / "e.dcm", place, shared=False, SOPInstanceUID="1.2.826.1.9")
    case = read_case(tmp_path / "e.dcm")
    labels = np.random.default_rng(3).integers(0, 3, (5, *case.size)).astype(np.uint8)
    grid = case.source_grid
    assert grid is not None
    expected, affine = grid.to_file(labels), affine_of(place)
    for segments in ("binary", "labelmap"):
        path = tmp_path / f"{segments}.seg.dcm"
        origin = Origin({"title": "unet"}, segments)  # type: ignore[arg-type]
        write_label(labels, case, path, target=TARGET, origin=origin)
        seg = highdicom.seg.segread(path)
        # The frames of the file are the slices 1, 4, 2, 0, 3.
        frames = seg.get_pixels_by_source_frame(
            "1.2.826.1.9", [4, 1, 3, 5, 2], combine_segments=True
        )
        np.testing.assert_array_equal(frames.transpose(2, 1, 0), expected)
        assert seg.FrameOfReferenceUID == UIDS["FrameOfReferenceUID"]
        images = by_dcmqi(path, tmp_path / f"dcmqi-{segments}")
        for number, image in enumerate(images, start=1):
            found = in_series(image, affine, expected.shape)
            right = expected if segments == "labelmap" else (expected == number) * found.max()
            np.testing.assert_array_equal(found, right)
    write_label(labels, case, tmp_path / "x.rtstruct.dcm", target=TARGET)
    data = pydicom.dcmread(tmp_path / "x.rtstruct.dcm")
    order = [1, 4, 2, 0, 3]
    again: dict[int, list[np.ndarray]] = {}
    for contour in data.ROIContourSequence[0].ContourSequence:
        points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
        index = np.linalg.solve(affine, np.c_[points, np.ones(len(points))].T)[:3].T
        k = round(float(index[0, 2]))
        (image,) = contour.ContourImageSequence
        assert order[image.ReferencedFrameNumber - 1] == k
        again.setdefault(k, []).append(np.round(index[:, 1::-1] + 0.5, 2))
    for k in range(5):
        mask = filled(again.get(k, []), (6, 7))
        np.testing.assert_array_equal(mask.T, expected[:, :, k] == 1)


@pytest.mark.parametrize("name", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
def test_compressed_slices_and_frames(tmp_path: Path, name: str) -> None:
    syntax = getattr(pydicom.uid, name)
    volume = np.kron(VOLUME, np.ones((1, 8, 8), np.int16))
    folder = write_placed(tmp_path / "ct", volume=volume)
    write_enhanced(tmp_path / "e.dcm", volume=volume)
    for file in (*folder.iterdir(), tmp_path / "e.dcm"):
        data = pydicom.dcmread(file)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(file)
    for path in (folder, tmp_path / "e.dcm"):
        np.testing.assert_array_equal(read_case(path).image[:, 0], volume)


def by_dcmtk(folder: Path, volume: np.ndarray, option: str) -> Path:
    """A series that DCMTK has compressed."""
    compress = program("dcmcjpeg")
    for file in write_placed(folder, volume=volume).iterdir():
        subprocess.run([compress, option, str(file), str(file)], check=True, timeout=60)
    return folder


def test_jpeg_with_and_without_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[None].repeat(3, 0)
    folder = by_dcmtk(tmp_path / "baseline", smooth, "+eb")
    found = read_case(folder).image[:, 0].astype(int)
    assert np.abs(found - smooth).max() <= 3

    class Missing:
        is_available = False

    lossless = by_dcmtk(tmp_path / "lossless", smooth, "+e1")
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _: Missing)
    for path, name in ((folder, "JPEG Baseline"), (lossless, "JPEG Lossless")):
        refused(path, name, "pip install python-gdcm", "decompress the series first", "dcmdjpeg")


@pytest.mark.skipif(
    find_spec("gdcm") is None and "CI" not in os.environ, reason="python-gdcm is not installed"
)
@pytest.mark.parametrize(
    ("option", "syntax"), [("+el", "1.2.840.10008.1.2.4.57"), ("+e1", "1.2.840.10008.1.2.4.70")]
)
def test_jpeg_lossless_is_unpacked(tmp_path: Path, option: str, syntax: str) -> None:
    # Hounsfield units: 16 bits, some negative.
    volume = np.random.default_rng(1).integers(-1024, 3000, (3, 48, 56)).astype(np.int16)
    folder = by_dcmtk(tmp_path / "ct", volume, option)
    for file in folder.iterdir():
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_case(folder).image[:, 0], volume)
