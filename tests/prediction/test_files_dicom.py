"""Series and pictures of DICOM are predicted however they are given; turned pictures are noted."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from segweave.errors import InputError, UsageError
from segweave.prediction import predict_files
from tests.formats.series_of import write_placed
from tests.formats.test_dicom import VOLUME as SLICES
from tests.formats.test_dicom import write_series, write_slice
from tests.prediction.tiny import by_brightness

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("root", ["series", "slash", "dot", "parent"])
def test_a_series_is_one_label_map_however_it_is_given(tmp_path, monkeypatch, root):
    series = write_series(tmp_path / "dcm" / "c0")
    monkeypatch.chdir(series)
    given = {"series": series, "slash": f"{series}/", "dot": ".", "parent": series.parent}[root]
    report = predict_files(by_brightness((16, 16)), given, tmp_path / "out")
    assert not report.failures
    assert [file.labels for file in report.files] == [tmp_path / "out" / "c0.nii.gz"]
    assert nib.load(tmp_path / "out" / "c0.nii.gz").shape == (7, 6, 5)


def test_pictures_of_dicom_without_a_position_become_pictures(tmp_path):
    for k in range(2):
        write_slice(tmp_path / "xr" / f"x{k}.dcm", SLICES[k], Modality="DX")
    write_slice(tmp_path / "one" / "u.IMA", SLICES[2], Modality="US")
    predictor = by_brightness((16, 16))
    given = [tmp_path / "xr", tmp_path / "one" / "u.IMA"]
    report = predict_files(predictor, given, tmp_path / "out")
    assert not report.failures
    names = [file.labels.name for file in report.files]
    assert names == ["x0.png", "x1.png", "u.png"]
    assert np.asarray(Image.open(tmp_path / "out" / "u.png")).shape == (6, 7)


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_picture_that_is_shown_turned_is_noted(tmp_path, turn):
    exif = Image.Exif()
    exif[274] = turn
    picture = Image.fromarray(RNG.integers(0, 255, (20, 30)).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", exif=exif)
    (file,) = predict_files(by_brightness((16, 16)), tmp_path / "a.jpg", tmp_path / "out").files
    assert ("EXIF orientation" in file.note) == (turn != 1)
    assert np.asarray(Image.open(file.labels)).shape == (20, 30)


def test_a_series_becomes_a_segmentation_object(tmp_path):
    series = write_placed(tmp_path / "in" / "c0", "oblique")
    predictor = by_brightness((16, 16))
    for segments, kind in (("binary", "BINARY"), ("labelmap", "LABELMAP")):
        out = tmp_path / segments
        report = predict_files(
            predictor, series.parent, out, format="dicom-seg", segments=segments, overlays=False
        )
        assert not report.failures
        assert [file.labels for file in report.files] == [out / "c0.seg.dcm"]
        assert pydicom.dcmread(out / "c0.seg.dcm").SegmentationType == kind
    # What was written beside the images is not read as an image.
    beside = predict_files(predictor, series.parent, series.parent, format="dicom-seg")
    assert len(beside.files) == 1
    again = predict_files(predictor, series.parent, tmp_path / "again", format="dicom-seg")
    assert len(again.files) == 1


def test_a_segmentation_object_of_another_image_is_refused_before_anything(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((3, 16, 16), np.float32))
    with pytest.raises(InputError, match="refers to the images") as caught:
        predict_files(by_brightness((16, 16)), tmp_path, tmp_path / "out", format="dicom-seg")
    assert "choose another format" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_label_map_object_is_refused_for_overlapping_classes_before_anything(tmp_path):
    from tests.prediction.tiny import OVERLAPPING, unet

    series = write_placed(tmp_path / "c0")
    with pytest.raises(UsageError, match="--seg-type binary"):
        predict_files(
            unet(target=OVERLAPPING),
            series,
            tmp_path / "out",
            format="dicom-seg",
            segments="labelmap",
        )
    assert not (tmp_path / "out").exists()
