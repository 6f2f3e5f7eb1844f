"""Structured reports: highdicom and dcmtk read the measurements, their segments and images."""

from __future__ import annotations

import subprocess

import highdicom
import pydicom
import pytest

from segweave.errors import UsageError
from segweave.formats import read_case
from segweave.formats.dicom_source import RESEARCH
from segweave.prediction import measure, predict_files
from tests.formats.series_of import UIDS, write_placed
from tests.prediction.tiny import TARGET, by_brightness
from tests.programs import optional


def test_measurements_are_a_report_on_the_segmentation(tmp_path):
    series = write_placed(tmp_path / "in" / "c0", "oblique", PatientName="Müller^Ä",
                          SpecificCharacterSet="ISO_IR 100")  # fmt: skip
    predictor = by_brightness((16, 16))
    out = tmp_path / "out"
    options = {"format": "dicom-seg", "report_dicom": True, "overlays": False}
    report = predict_files(predictor, series.parent, out, **options)
    assert not report.failures
    case = read_case(series)
    measured = measure(case, predictor.session().predict(case).labels, TARGET)
    assert all(one.pixels for one in measured)
    data = pydicom.dcmread(out / "c0.sr.dcm")
    sr = highdicom.sr.ComprehensiveSR.from_dataset(data)
    groups = sr.content.get_volumetric_roi_measurement_groups()
    seg = pydicom.dcmread(out / "c0.seg.dcm")
    assert len(groups) == 2
    for number, (group, one) in enumerate(zip(groups, measured, strict=True), start=1):
        assert group.tracking_identifier == one.name
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert list(segment.referenced_segment_numbers) == [number]
        found = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        assert found == {
            "Volume": (pytest.approx(one.volume_ml, abs=1e-4), "ml"),
            "Long axis": (pytest.approx(one.largest_diameter, abs=1e-3), "mm"),
        }
    assert str(data.PatientName) == "Müller^Ä"
    assert data.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert data.CompletionFlagDescription == RESEARCH
    assert data.VerificationFlag == "UNVERIFIED"
    (evidence,) = data.CurrentRequestedProcedureEvidenceSequence
    uids = {
        one.ReferencedSOPInstanceUID
        for referenced in evidence.ReferencedSeriesSequence
        for one in referenced.ReferencedSOPSequence
    }
    images = {pydicom.dcmread(file).SOPInstanceUID for file in series.iterdir()}
    assert uids == images | {seg.SOPInstanceUID}
    if dsrdump := optional("dsrdump"):
        command = [dsrdump, str(out / "c0.sr.dcm")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr.lower()
        volume = f'"Volume")="{round(measured[0].volume_ml, 4):g}" (ml,UCUM,"milliliter")'
        assert volume in done.stdout
        assert "not a medical device" in done.stdout
    again = predict_files(predictor, series.parent, series.parent, **options)
    assert len(again.files) == 1
    # Neither the segmentation nor the report beside the images is read as one.
    assert len(predict_files(predictor, series.parent, tmp_path / "b", overlays=False).files) == 1


def test_a_report_needs_the_segmentation_object(tmp_path):
    series = write_placed(tmp_path / "c0")
    with pytest.raises(UsageError, match="--format dicom-seg"):
        predict_files(by_brightness((16, 16)), series, tmp_path / "out", report_dicom=True)
    assert not (tmp_path / "out").exists()
