"""Structure sets: contours filled again by other programs give the mask, on the series' images."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats import read_case, write_label
from segweave.formats.dicom_source import RESEARCH, Origin
from tests.formats.series_of import PLACES, UIDS, VOLUME, affine_of, write_placed
from tests.formats.test_contours import filled
from tests.formats.test_dicom import write_slice
from tests.programs import optional

TARGET = TargetSpec(names=("background", "liver", "left kidney", "whatsit"))
OVERLAPPING = TargetSpec(kind="overlapping", names=("liver", "lesion"))
CARD = {"title": "unet + sa-lstm", "weights_sha256": "0123456789abcdef" * 4}


def filled_again(data: Any, folder: Path, affine: np.ndarray, shape: tuple[int, ...]) -> Any:
    """ROI name → mask (columns, rows, slices) of the contours, placed by their coordinates."""
    names = {roi.ROINumber: roi.ROIName for roi in data.StructureSetROISequence}
    uids = {}
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        at = np.linalg.solve(affine, [*map(float, header.ImagePositionPatient), 1])
        uids[header.SOPInstanceUID] = round(float(at[2]))
    masks = {name: np.zeros(shape, bool) for name in names.values()}
    for roi in data.ROIContourSequence:
        slices: dict[int, list[np.ndarray]] = {}
        for contour in roi.get("ContourSequence", ()):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            assert len(points) == contour.NumberOfContourPoints
            index = np.linalg.solve(affine, np.c_[points, np.ones(len(points))].T)[:3].T
            number = round(float(index[0, 2]))
            assert np.abs(index[:, 2] - number).max() < 1e-3, "in the plane of its image"
            (image,) = contour.ContourImageSequence
            assert uids[image.ReferencedSOPInstanceUID] == number
            slices.setdefault(number, []).append(index[:, 1::-1] + 0.5)
        for number, polygons in slices.items():
            found = filled([np.round(p, 2) for p in polygons], (shape[1], shape[0]))
            masks[names[roi.ReferencedROINumber]][:, :, number] = found.T
    return masks


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", [TARGET, OVERLAPPING], ids=["exclusive", "overlapping"])
def test_the_contours_are_the_mask(tmp_path: Path, place: str, target: TargetSpec) -> None:
    folder = write_placed(tmp_path / "ct", place)
    case = read_case(folder)
    rng = np.random.default_rng(4)
    if target.kind == "overlapping":
        labels = rng.integers(0, 2, (case.slices, 2, *case.size)).astype(np.uint8)
        maps = {"liver": labels[:, 0] > 0, "lesion": labels[:, 1] > 0}
    else:
        labels = rng.integers(0, 3, (case.slices, *case.size)).astype(np.uint8)
        maps = {name: labels == id for id, name in target.foreground.items()}
    path = tmp_path / "x.rtstruct.dcm"
    write_label(labels, case, path, target=target, origin=Origin(CARD))
    grid = case.source_grid
    assert grid is not None
    shape = (VOLUME.shape[2], VOLUME.shape[1], VOLUME.shape[0])
    found = filled_again(pydicom.dcmread(path), folder, affine_of(place), shape)
    assert list(found) == list(maps)
    for name, mask in maps.items():
        np.testing.assert_array_equal(found[name], grid.to_file(mask))


def test_what_the_structure_set_says(tmp_path: Path) -> None:
    folder = write_placed(
        tmp_path / "ct", PatientName="Müller^Ä", SpecificCharacterSet="ISO_IR 100"
    )
    case = read_case(folder)
    labels = (case.image[:, 0] > 0).astype(np.uint8)
    path = tmp_path / "x.rtstruct.dcm"
    write_label(labels, case, path, format="rtstruct", target=TARGET, origin=Origin(CARD))
    data = pydicom.dcmread(path)
    assert (data.Modality, data.StructureSetDescription) == ("RTSTRUCT", RESEARCH)
    assert data.ApprovalStatus == "UNAPPROVED"
    assert str(data.PatientName) == "Müller^Ä"
    (frame,) = data.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == data.FrameOfReferenceUID == UIDS["FrameOfReferenceUID"]
    (study,) = frame.RTReferencedStudySequence
    assert study.ReferencedSOPInstanceUID == data.StudyInstanceUID == UIDS["StudyInstanceUID"]
    (series,) = study.RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == UIDS["SeriesInstanceUID"]
    uids = {pydicom.dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    assert {one.ReferencedSOPInstanceUID for one in series.ContourImageSequence} == uids
    liver = data.StructureSetROISequence[0]
    assert (liver.ROIName, liver.ROIGenerationAlgorithm) == ("liver", "AUTOMATIC")
    assert list(data.ROIContourSequence[0].ROIDisplayColor) == [213, 94, 0]
    assert "ContourSequence" not in data.ROIContourSequence[2]
    code = data.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodeMeaning) == ("10200004", "Liver")
    if dcmdump := optional("dcmdump"):
        done = subprocess.run([dcmdump, str(path)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_picture_without_a_position_has_no_contours(tmp_path: Path) -> None:
    xray = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX"}
    write_slice(tmp_path / "x.dcm", VOLUME[0], **{**UIDS, **xray})
    case = read_case(tmp_path / "x.dcm")
    with pytest.raises(InputError, match="without a position"):
        write_label(
            np.zeros((1, *case.size), np.uint8), case, tmp_path / "x.rtstruct.dcm", target=TARGET
        )
    assert not (tmp_path / "x.rtstruct.dcm").exists()
