"""DICOM-SEG objects: highdicom, dcmqi, dcmtk and ITK read what was written, voxel by voxel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.target_codes import with_codes
from segweave.errors import InputError, UsageError
from segweave.formats import read_case, write_label
from segweave.formats.dicom_source import RESEARCH, Origin
from tests.formats.series_of import PLACES, UIDS, VOLUME, affine_of, write_placed
from tests.formats.test_dicom import write_slice
from tests.programs import optional, program

TARGET = TargetSpec(names=("background", "liver", "left kidney", "whatsit"))
OVERLAPPING = TargetSpec(kind="overlapping", names=("liver", "lesion"))
CARD = {"title": "unet + sa-lstm at bottleneck", "weights_sha256": "0123456789abcdef" * 4}
RNG = np.random.default_rng(4)


def labels_for(case: Case, target: TargetSpec = TARGET) -> np.ndarray:
    if target.kind == "overlapping":
        return RNG.integers(0, 2, (case.slices, 2, *case.size)).astype(np.uint8)
    labels = RNG.integers(0, 3, (case.slices, *case.size)).astype(np.uint8)
    if case.slices > 2:
        labels[0] = 0
    return labels


def written(
    folder: Path, target: TargetSpec = TARGET, segments: Any = "binary", **tags: Any
) -> tuple[Case, np.ndarray, Path]:
    case = read_case(folder)
    labels = labels_for(case, target)
    path = folder.parent / f"{folder.name}-{segments}.seg.dcm"
    write_label(labels, case, path, target=target, origin=Origin(CARD, segments))
    return case, labels, path


def on_file(case: Case, labels: np.ndarray) -> np.ndarray:
    """(columns, rows, slices) in the order of the series."""
    assert case.source_grid is not None
    return case.source_grid.to_file(labels)


def by_dcmqi(path: Path, folder: Path) -> list[Any]:
    """The segments as dcmqi writes them, as SimpleITK images."""
    sitk = pytest.importorskip("SimpleITK")
    folder.mkdir()
    command = [
        program("segimage2itkimage"),
        "--inputDICOM",
        str(path),
        "--outputDirectory",
        str(folder),
        "-t",
        "nrrd",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [sitk.ReadImage(str(file)) for file in sorted(folder.glob("*.nrrd"))]


def in_series(image: Any, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An image of ITK on the voxels of the series, by the positions of both."""
    sitk = pytest.importorskip("SimpleITK")
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    index = np.argwhere(values >= 0)
    at = np.linalg.solve(affine, matrix) @ np.c_[index, np.ones(len(index))].T
    nearest = np.rint(at[:3]).astype(int)
    assert np.abs(at[:3] - nearest).max() < 1e-3
    full = np.zeros(shape, values.dtype)
    full[tuple(nearest)] = values[tuple(index.T)]
    return full


@pytest.mark.parametrize("segments", ["binary", "labelmap"])
@pytest.mark.parametrize("place", PLACES)
def test_every_voxel_is_where_it_was(tmp_path: Path, place: str, segments: str) -> None:
    case, labels, path = written(write_placed(tmp_path / "ct", place), segments=segments)
    expected, affine = on_file(case, labels), affine_of(place)
    seg = highdicom.seg.segread(path)
    headers = {
        data.SOPInstanceUID: data
        for data in (pydicom.dcmread(f) for f in (tmp_path / "ct").iterdir())
    }
    order = sorted(headers, key=lambda uid: _depth(headers[uid], affine))
    frames = seg.get_pixels_by_source_instance(
        order, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(frames.transpose(2, 1, 0), expected)
    # By position alone, as programs do that know nothing of the series.
    volume = seg.get_volume(combine_segments=True)
    at = np.linalg.solve(affine, volume.affine @ np.diag([1, 1, 1, 1.0]))
    index = np.argwhere(np.ones(volume.spatial_shape, bool))
    there = (at @ np.c_[index, np.ones(len(index))].T)[:3]
    nearest = np.rint(there).astype(int)
    assert np.abs(there - nearest).max() < 1e-3
    full = np.zeros(expected.shape, np.uint8)
    full[tuple(nearest)] = volume.array[tuple(index.T)]
    np.testing.assert_array_equal(full, expected)
    images = by_dcmqi(path, tmp_path / "dcmqi")
    if segments == "labelmap":
        np.testing.assert_array_equal(in_series(images[0], affine, expected.shape), expected)
        return
    for number, image in enumerate(images[:2], start=1):
        found = in_series(image, affine, expected.shape) > 0
        np.testing.assert_array_equal(found, expected == number)


def _depth(data: Any, affine: np.ndarray) -> float:
    return float(np.dot(affine[:3, 2], np.array(data.ImagePositionPatient, float)))


def test_one_slice_only(tmp_path: Path) -> None:
    folder = write_placed(tmp_path / "ct", "oblique", VOLUME[:1])
    case, labels, path = written(folder)
    assert case.slices == 1
    seg = pydicom.dcmread(path)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == [0.8, 0.6]
    assert float(measures.SliceThickness) == float(measures.SpacingBetweenSlices) == 2.5
    images = by_dcmqi(path, tmp_path / "dcmqi")
    expected = on_file(case, labels)
    for number, image in enumerate(images[:2], start=1):
        found = in_series(image, affine_of("oblique"), expected.shape) > 0
        np.testing.assert_array_equal(found, expected == number)


def test_what_the_object_says(tmp_path: Path) -> None:
    folder = write_placed(
        tmp_path / "ct", PatientName="Müller^Ä", SpecificCharacterSet="ISO_IR 100"
    )
    _, _, path = written(folder)
    seg = pydicom.dcmread(path)
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (
        UIDS["StudyInstanceUID"],
        UIDS["FrameOfReferenceUID"],
    )
    assert str(seg.PatientName) == "Müller^Ä"
    assert seg.SeriesInstanceUID != UIDS["SeriesInstanceUID"]
    uids = {pydicom.dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == UIDS["SeriesInstanceUID"]
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == uids
    assert seg.ContentDescription == RESEARCH
    assert "not a medical device" in seg.SeriesDescription
    described = {one.SegmentLabel: one for one in seg.SegmentSequence}
    assert list(described) == ["liver", "left kidney", "whatsit"]
    codes = {name: one.SegmentedPropertyTypeCodeSequence[0] for name, one in described.items()}
    assert (codes["liver"].CodingSchemeDesignator, codes["liver"].CodeValue) == ("SCT", "10200004")
    side = codes["left kidney"].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (codes["left kidney"].CodeValue, side.CodeMeaning) == ("64033007", "Left")
    assert codes["whatsit"].CodingSchemeDesignator == "99SEGWEAVE"
    assert codes["whatsit"].CodeMeaning == "whatsit (no standard code)"
    algorithm = described["liver"].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == CARD["title"]
    assert algorithm.AlgorithmVersion == "weights 0123456789abcdef"
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert described["liver"].SegmentAlgorithmType == "AUTOMATIC"
    if dcmdump := optional("dcmdump"):
        done = subprocess.run([dcmdump, str(path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert done.stderr == ""


def test_headers_of_old_scanners(tmp_path: Path) -> None:
    folder = write_placed(
        tmp_path / "ct", PatientBirthDate="1941.02.03", StudyDate="nope", StudyTime="10:20:30",
        PatientSex="X", AccessionNumber="A" * 20,
    )  # fmt: skip
    _, _, path = written(folder)
    seg = pydicom.dcmread(path)
    assert (seg.PatientBirthDate, seg.StudyTime) == ("19410203", "102030")
    assert (seg.StudyDate, seg.PatientSex) == ("", "")


def test_the_same_result_is_the_same_object(tmp_path: Path) -> None:
    case = read_case(write_placed(tmp_path / "ct"))
    labels = labels_for(case)
    uids = []
    for k, (values, card) in enumerate(
        ((labels, CARD), (labels, CARD), (labels[::-1], CARD), (labels, {**CARD, "title": "b"}))
    ):
        path = tmp_path / f"{k}.seg.dcm"
        write_label(values, case, path, target=TARGET, origin=Origin(card))
        uids.append(pydicom.dcmread(path).SOPInstanceUID)
    assert uids[0] == uids[1]
    assert len(set(uids)) == 3


def test_overlapping_classes_are_bit_maps(tmp_path: Path) -> None:
    case, labels, path = written(write_placed(tmp_path / "ct", "reversed"), OVERLAPPING)
    for number, image in enumerate(by_dcmqi(path, tmp_path / "dcmqi")):
        expected = on_file(case, labels[:, number])
        found = in_series(image, affine_of("reversed"), expected.shape) > 0
        np.testing.assert_array_equal(found, expected == 1)
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"
    with pytest.raises(UsageError, match="--seg-type binary"):
        written(tmp_path / "ct", OVERLAPPING, "labelmap")


def test_codes_of_a_target(tmp_path: Path) -> None:
    target = with_codes(
        TARGET,
        {
            "whatsit": "FMA:7203:Kidney",
            "liver": {"type": "SCT:1234:Mine", "category": "SCT:85756007:Tissue"},
        },
    )
    _, _, path = written(write_placed(tmp_path / "ct"), target)
    liver, kidney, other = pydicom.dcmread(path).SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Mine"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Tissue"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "FMA"


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ("FrameOfReferenceUID", ("no FrameOfReferenceUID", "--format nifti")),
        ("StudyInstanceUID", ("no StudyInstanceUID",)),
    ],
)
def test_images_without_uids_are_refused(
    tmp_path: Path, lacking: str, words: tuple[str, ...]
) -> None:
    case = read_case(write_placed(tmp_path / "ct"))
    for file in (tmp_path / "ct").iterdir():
        data = pydicom.dcmread(file)
        delattr(data, lacking)
        data.save_as(file)
    with pytest.raises(InputError) as caught:
        write_label(labels_for(case), case, tmp_path / "x.seg.dcm", target=TARGET)
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "x.seg.dcm").exists()


def test_other_sources_and_labels_are_refused(tmp_path: Path) -> None:
    case = read_case(write_placed(tmp_path / "ct"))
    labels = labels_for(case)
    with pytest.raises(InputError, match="ids 0, 1, 2, 3 of its classes"):
        write_label(labels + 2, case, tmp_path / "x.seg.dcm", target=TARGET)
    np.savez(tmp_path / "a.npz", image=case.image)
    array = read_case(tmp_path / "a.npz")
    with pytest.raises(InputError, match="refers to the images") as caught:
        write_label(labels, array, tmp_path / "x.seg.dcm", target=TARGET)
    assert "give the DICOM series that the image was converted from" in str(caught.value)
    in_memory = Case("a", "a", case.image, stack="space")
    with pytest.raises(InputError, match="not read from a file"):
        write_label(labels, in_memory, tmp_path / "x.seg.dcm", target=TARGET)
    (tmp_path / "ct" / "IM001.dcm").unlink()
    with pytest.raises(InputError, match="images at other positions"):
        write_label(labels, case, tmp_path / "x.seg.dcm", target=TARGET)


def test_an_empty_label_map_and_a_picture_without_a_position(tmp_path: Path) -> None:
    case = read_case(write_placed(tmp_path / "ct"))
    empty = np.zeros((5, *case.size), np.uint8)
    write_label(empty, case, tmp_path / "e.seg.dcm", target=TARGET, origin=Origin(CARD))
    seg = highdicom.seg.segread(tmp_path / "e.seg.dcm")
    assert seg.pixel_array.max() == 0
    xray = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX"}
    write_slice(tmp_path / "x.dcm", VOLUME[0], **{**UIDS, **xray})
    picture = read_case(tmp_path / "x.dcm")
    labels = labels_for(picture)
    write_label(labels, picture, tmp_path / "p.seg.dcm", target=TARGET, origin=Origin(CARD))
    found = highdicom.seg.segread(tmp_path / "p.seg.dcm")
    pixels = found.get_pixels_by_source_instance(
        [pydicom.dcmread(tmp_path / "x.dcm").SOPInstanceUID], combine_segments=True
    )
    np.testing.assert_array_equal(pixels, labels)
