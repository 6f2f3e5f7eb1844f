from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from segweave.errors import InputError
from segweave.formats import find_images, label_name, read_case, read_label, write_label

SERIES = "1.2.3.4"
AXIAL = (1, 0, 0, 0, 1, 0)


def write_slice(path: Path, values: np.ndarray, position: Any = None, **tags: Any) -> FileDataset:
    """One slice, by default axial, of 0.8 × 0.6 mm pixels (row, column)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality = SERIES, "CT"
    data.PatientName = "Nobody^Known"
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 3 if values.ndim == 3 else 1
    data.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = values.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    if position is not None:
        data.PixelSpacing = [0.8, 0.6]
        data.SliceThickness = 2.5
        data.ImageOrientationPatient = list(AXIAL)
        data.ImagePositionPatient = [float(v) for v in position]
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.PixelData = np.ascontiguousarray(values).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return data


VOLUME = np.random.default_rng(0).integers(-900, 900, (5, 6, 7)).astype(np.int16)


def write_series(folder: Path, volume: np.ndarray = VOLUME, step: float = 2.5, **tags: Any) -> Path:
    """Slices whose names are in another order than their places."""
    order = [3, 0, 4, 1, 2][: len(volume)] if len(volume) == 5 else range(len(volume))
    for name, k in enumerate(order):
        write_slice(folder / f"IM{name:03d}.dcm", volume[k], (-10, -20, 100 + step * k), **tags)
    return folder


def refused(path: Path, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        read_case(path)
    text = str(caught.value)
    for word in words:
        assert word in text, text
    return text


def test_slices_are_ordered_by_their_place(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct")
    (folder / "readme.txt").write_text("not an image", encoding="utf-8")
    case = read_case(folder)
    np.testing.assert_array_equal(case.image[:, 0], VOLUME)
    assert (case.id, case.stack) == ("ct", "space")
    assert case.spacing == pytest.approx((2.5, 0.8, 0.6))
    assert case.affine is not None
    # LPS (-10, -20, 100) is RAS (10, 20, 100); columns run to the left, rows to the back.
    expected = [[0, 0, -0.6, 10], [0, -0.8, 0, 20], [2.5, 0, 0, 100], [0, 0, 0, 1]]
    np.testing.assert_allclose(case.affine, expected, atol=1e-9)
    assert case.attributes["modality"] == "CT"
    assert "Nobody" not in str(case.attributes)
    assert case.provenance is not None
    assert len(case.provenance.sha256) == 64


def test_slices_in_the_other_direction_and_on_other_planes(tmp_path: Path) -> None:
    # Feet first: the columns run to the right.
    turned = write_series(tmp_path / "a", ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])
    case = read_case(turned)
    np.testing.assert_array_equal(case.image[:, 0], VOLUME[:, :, ::-1])
    for k in range(5):
        write_slice(
            tmp_path / "b" / f"{k}.dcm",
            VOLUME[k],
            (3.0 * k, 0, 0),
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        )
    case = read_case(tmp_path / "b")
    np.testing.assert_array_equal(case.image[:, 0], VOLUME)
    assert case.affine is not None
    np.testing.assert_allclose(case.affine[:3, 0], (-3, 0, 0), atol=1e-9)


def test_hounsfield_units(tmp_path: Path) -> None:
    stored = (VOLUME + 1024).astype(np.uint16)
    case = read_case(write_series(tmp_path / "a", stored, RescaleSlope=1, RescaleIntercept=-1024))
    np.testing.assert_array_equal(case.image[:, 0], VOLUME)
    assert case.image.dtype == np.int16
    case = read_case(write_series(tmp_path / "b", stored, RescaleSlope=0.5, RescaleIntercept=-2))
    np.testing.assert_allclose(case.image[:, 0], stored * 0.5 - 2)
    assert case.image.dtype == np.float32
    case = read_case(write_series(tmp_path / "c", stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(case.image[:, 0], 65535 - stored.astype(np.int64))


def test_a_label_goes_back_as_nifti(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct")
    case = read_case(folder)
    labels = (VOLUME > 0).astype(np.uint8)
    name = label_name(folder)
    assert name == "ct.nii.gz"
    write_label(labels, case, tmp_path / name)
    written = nibabel.load(tmp_path / name)
    np.testing.assert_allclose(
        written.affine,
        [[-0.6, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 100], [0, 0, 0, 1]],
        atol=1e-5,
    )
    np.testing.assert_array_equal(read_label(tmp_path / name, case), labels)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels.transpose(2, 1, 0))


def test_a_folder_of_series_and_other_images(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    series = write_series(tmp_path / "two")
    for k, path in enumerate(sorted(series.iterdir())):
        path.rename(path.with_name(f"00{k}"))
    np.savez(tmp_path / "array.npz", image=np.zeros((4, 5)))
    write_slice(tmp_path / "three" / "x.dcm", VOLUME[0], (0, 0, 0))
    assert find_images(tmp_path) == [
        tmp_path / "array.npz", tmp_path / "one", tmp_path / "three" / "x.dcm", tmp_path / "two",
    ]  # fmt: skip
    single = read_case(tmp_path / "three" / "x.dcm")
    assert (single.slices, single.spacing) == (1, pytest.approx((2.5, 0.8, 0.6)))


def test_a_colour_picture_without_a_place(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 255, (6, 7, 3)).astype(np.uint8)
    write_slice(tmp_path / "x.dcm", values, Modality="OT")
    case = read_case(tmp_path / "x.dcm")
    np.testing.assert_array_equal(case.image[0], np.moveaxis(values, -1, 0))
    assert (case.stack, case.affine) == ("single", None)


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct")
    (folder / "IM003.dcm").unlink()
    refused(
        folder, "1 missing slice:", "slices every 2.5 mm", "5 mm between", "copy the whole series"
    )


def test_doubled_and_uneven_slices_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct")
    copy = folder / "IM009.dcm"
    copy.write_bytes((folder / "IM001.dcm").read_bytes())
    refused(folder, "1 doubled slices", "IM001.dcm and IM009.dcm", "same position")
    copy.unlink()
    write_slice(folder / "IM002.dcm", VOLUME[4], (-10, -20, 111.1))
    refused(folder, "uneven steps", "resample")
    write_slice(folder / "IM002.dcm", VOLUME[4], (-10, -20, 110))
    write_slice(folder / "IM003.dcm", VOLUME[1], (-2, -20, 102.5))
    refused(folder, "IM003.dcm", "straight line", "beside it")


@pytest.mark.parametrize(
    ("tags", "values", "words"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, VOLUME[1], ("mixed orientations",)),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, VOLUME[1], ("mixed orientations",)),
        ({}, VOLUME[1][:4], ("4 × 7 pixels", "6 × 7 pixels as in")),
        ({"PixelSpacing": [0.8, 0.8]}, VOLUME[1], ("one pixel size|0.8 0.8",)),
        ({"SeriesInstanceUID": "1.2.9"}, VOLUME[1], ("one series in a folder", "4 files like")),
        ({"ImagePositionPatient": None}, VOLUME[1], ("a position", "none in 1 of 5")),
        ({"NumberOfFrames": 3}, VOLUME[1], ("one slice per file", "3 frames", "dcm2niix")),
        ({"Rows": None}, VOLUME[1], ("not a picture",)),
        ({"PixelSpacing": [0, 0]}, VOLUME[1], ("mm",)),
        ({"Rows": 60000, "Columns": 60000}, VOLUME[1], ("declares",)),
    ],
)
def test_slices_that_do_not_fit_are_refused(
    tmp_path: Path, tags: Any, values: np.ndarray, words: tuple[str, ...]
) -> None:
    folder = write_series(tmp_path / "ct")
    write_slice(folder / "IM003.dcm", values, (-10, -20, 102.5), **tags)
    text = refused(folder)
    for word in words:
        assert any(part in text for part in word.split("|")), text


def test_a_first_orientation_that_is_none(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    refused(folder, "right angles")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    folder = write_series(tmp_path / "ct")
    path = folder / "IM002.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(folder, "IM002.dcm")


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    refused(folder, "DICOM series", "a folder without one")
    (folder / "a.dcm").write_bytes(b"x" * 500)
    refused(folder, "a.dcm", "DICM after 128 bytes")


def _nested(depth: int) -> bytes:
    """A sequence in a sequence ..., each of undefined length."""
    start = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00" + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    return start * depth + end * depth


def test_deep_nesting_is_refused_not_a_crash(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct")
    path = folder / "IM002.dcm"
    content = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    start = 144 + int(meta.FileMetaInformationGroupLength)
    path.write_bytes(content[:start] + _nested(5000) + content[start:])
    refused(folder, "IM002.dcm")


def test_a_deflated_bomb_is_refused_without_being_unfolded(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct")
    path = folder / "IM002.dcm"
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    data.save_as(path, enforce_file_format=True)
    # A deflated file that is what it should be is read.
    np.testing.assert_array_equal(read_case(folder).image[:, 0], VOLUME)
    content = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(1 << 20)
    bomb = b"".join([*(packer.compress(block) for _ in range(300)), packer.flush()])
    path.write_bytes(content[: 144 + int(meta.FileMetaInformationGroupLength)] + bomb)
    assert path.stat().st_size < 1 << 20
    refused(folder, "IM002.dcm", "unfolds to more")


def test_a_private_sequence_is_passed_over(tmp_path: Path) -> None:
    inner = pydicom.Dataset()
    inner.PatientID = "secret"
    folder = write_series(tmp_path / "ct", ReferencedImageSequence=Sequence([inner]))
    np.testing.assert_array_equal(read_case(folder).image[:, 0], VOLUME)


def test_an_extra_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from segweave.errors import MissingExtraError

    folder = write_series(tmp_path / "ct")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"segweave\[dicom\]"):
        read_case(folder)


def test_a_series_in_a_table(tmp_path: Path) -> None:
    from segweave.checking import check
    from segweave.data.store import Store
    from segweave.datasets import prepare

    for k in range(2):
        folder = write_series(tmp_path / f"scan{k}", VOLUME + np.int16(k))
        write_label((VOLUME > 0).astype(np.uint8), read_case(folder), tmp_path / f"l{k}.nii.gz")
    table = tmp_path / "cases.csv"
    table.write_text("image,mask\nscan0,l0.nii.gz\nscan1,l1.nii.gz\n", encoding="utf-8")
    assert check(table).ok
    prepare("table", table, tmp_path / "s")
    case = Store(tmp_path / "s").case("scan1")
    np.testing.assert_array_equal(case.image[:, 0], VOLUME + 1)
    np.testing.assert_array_equal(case.label, VOLUME > 0)
    (tmp_path / "scan0" / "IM003.dcm").unlink()
    report = check(table)
    assert any("missing slice" in problem.found for problem in report.errors), report.problems
