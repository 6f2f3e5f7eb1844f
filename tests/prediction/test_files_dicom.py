"""Series and pictures of DICOM are predicted however they are given; turned pictures are noted."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.prediction import predict_files
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
