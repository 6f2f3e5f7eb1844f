"""Names in a DICOM header are in no result, message, log or file name that does not need them."""

from __future__ import annotations

import gzip
import logging
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

import segweave
from segweave.checking import check
from segweave.datasets import prepare
from segweave.errors import SegweaveError
from segweave.formats import label_formats, read_case, write_label
from segweave.prediction import predict_files
from tests.formats.enhanced import write_enhanced
from tests.formats.series_of import write_placed
from tests.prediction.tiny import by_brightness
from tests.serve.test_private import KINDS, damaged

PATIENT = {
    "PatientName": "Canary^Jane",
    "PatientID": "CanaryID7",
    "PatientBirthDate": "19410203",
    "PatientAddress": "Canary Street 7",
    "OtherPatientIDs": "CanaryOther",
    "AccessionNumber": "CanaryAcc",
    "StudyID": "CanaryStudy",
    "StudyDescription": "Canary liver",
    "ReferringPhysicianName": "Canary^Doctor",
}
"""Of the patient and the study: an archive needs some of them to file an object."""
OTHERS = {
    "InstitutionName": "Goldfinch Hospital",
    "InstitutionAddress": "Goldfinch Road",
    "SeriesDescription": "Goldfinch series",
    "OperatorsName": "Goldfinch^Operator",
    "PerformingPhysicianName": "Goldfinch^Doctor",
    "StationName": "GOLDFINCH1",
    "DeviceSerialNumber": "Goldfinch77",
    "ImageComments": "Goldfinch comment",
}
"""Of the place and the scan: no result needs them."""
WORDS = ("canary", "19410203", "goldfinch")


def contents(file: Path) -> bytes:
    """The bytes of a file, unpacked where it is packed."""
    raw = file.read_bytes()
    if file.name.endswith(".gz"):
        raw += gzip.decompress(raw)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            raw += b"".join(archive.read(name) for name in archive.namelist())
    return raw


def found_in(folder: Path, words: tuple[str, ...] = WORDS) -> list[str]:
    """The files below a folder whose name or content has one of the words."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return [
        f"{path.relative_to(folder)}: {word}"
        for path in files
        for word in words
        if word in path.name.lower()
        or word.encode() in contents(path).lower()
        or word.encode("utf-16-le") in contents(path).lower()
    ]


@pytest.fixture
def listened(
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
):
    """Nothing that is printed, logged or warned of has one of the words."""
    caplog.set_level(logging.DEBUG)
    warnings.simplefilter("always")
    shown: list[str] = []
    yield shown
    shown += [record.getMessage() for record in caplog.get_records("call")]
    shown += [str(warning.message) for warning in recwarn]
    shown += capfd.readouterr()
    text = "\n".join(shown).lower()
    assert not [word for word in WORDS if word in text]


def test_results_of_predict(tmp_path: Path, listened: list[str]) -> None:
    series = write_placed(tmp_path / "in" / "c0", "oblique", **PATIENT, **OTHERS)
    predictor = by_brightness((16, 16))
    for name in label_formats():
        objects = name in ("dicom-seg", "rtstruct")
        report = predict_files(
            predictor,
            series,
            tmp_path / name,
            format=name,
            probabilities=not objects,
            report_dicom=name == "dicom-seg",
        )
        assert report.failures or report.files
        listened += [str(failure.error) for failure in report.failures]
        written = found_in(tmp_path / name) if report.files else []
        if not objects:
            assert written == [], name
            continue
        # The patient is in the objects, and nowhere beside them; the hospital is in none.
        assert {line.split(":")[0].rpartition(".")[2] for line in written} == {"dcm"}
        assert not [line for line in written if "goldfinch" in line]
        for file in (tmp_path / name).glob("*.dcm"):
            data = pydicom.dcmread(file)
            assert str(data.PatientName) == "Canary^Jane"
            assert data.PatientID == "CanaryID7"
            assert "PatientAddress" not in data
            assert "OtherPatientIDs" not in data


def test_messages_about_damaged_series(tmp_path: Path, listened: list[str]) -> None:
    refused = 0
    for k, kind in enumerate(KINDS):
        series = damaged(tmp_path / str(k) / "series", kind)
        for file in series.iterdir():
            file.rename(file.with_name(f"{file.stem[-3:]}.dcm"))
        try:
            read_case(series)
        except SegweaveError as error:
            listened.append(str(error))
            refused += 1
    assert refused >= len(KINDS) - 1
    # A name in the place of a number, as damaged files have it.
    position = b"\x20\x00\x32\x00DS"
    for number, (right, wrong) in enumerate(
        (
            (b"0.8\\0.6 ", b"Canary\\1"),
            (b"\x28\x00\x10\x00US\x02\x00\x06\x00", b"\x28\x00\x10\x00IS\x06\x00Canary"),
            (position, b"\x20\x00\x32\x00PN"),
        )
    ):
        series = write_placed(tmp_path / f"w{number}", **PATIENT)
        file = next(series.iterdir())
        content = file.read_bytes()
        assert content.count(right) == 1
        file.write_bytes(content.replace(right, wrong))
        with pytest.raises(SegweaveError) as caught:
            read_case(series)
        listened.append(str(caught.value))
    write_enhanced(tmp_path / "e.dcm", order=[0, 1, 2, 3, 4] * 2, **PATIENT, **OTHERS)
    with pytest.raises(SegweaveError) as caught:
        read_case(tmp_path / "e.dcm")
    listened.append(str(caught.value))


@pytest.mark.slow
def test_stores_runs_reports_and_cards(tmp_path: Path, listened: list[str]) -> None:
    rng = np.random.default_rng(0)
    lines = ["image,mask,group"]
    for k in range(4):
        volume = rng.integers(-900, 900, (3, 24, 24)).astype(np.int16)
        folder = write_placed(tmp_path / "raw" / f"s{k}", volume=volume, **PATIENT, **OTHERS)
        mask = (volume[:, ::1] > 0).astype(np.uint8)
        write_label(mask, read_case(folder), tmp_path / "raw" / f"m{k}.nii.gz")
        lines.append(f"s{k},m{k}.nii.gz,g{k}")
    table = tmp_path / "raw" / "cases.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    listened.append(str(check(table).problems))
    prepare("table", table, tmp_path / "store", fractions=(0.5, 0.25, 0.25))
    sets = ("training.epochs=1", "network.options.width=2", "input.size=[32,32]")
    segweave.train("demo", tmp_path / "store", tmp_path / "run", sets=sets, device="cpu")
    segweave.evaluate(tmp_path / "run", device="cpu")
    for folder in ("store", "run"):
        assert found_in(tmp_path / folder) == []
    assert (tmp_path / "run" / "model" / "card.json").is_file()
    assert list((tmp_path / "run").rglob("*.html")), "the report was looked at"
