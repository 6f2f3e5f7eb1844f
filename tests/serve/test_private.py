"""Names of patients and paths of the server are in no message, log, file name or result."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from segweave.errors import InputError, SegweaveError
from segweave.serve.messages import public_message, where
from tests.formats.series_of import write_placed
from tests.formats.test_dicom import VOLUME, write_series, write_slice

from .conftest import Start
from .test_jobs_api import zipped

CANARY = "Canary"
TAGS = {
    "PatientName": "Canary^Jane",
    "PatientID": "CanaryID7",
    "InstitutionName": "Canary Hospital",
    "StudyDescription": "Canary liver",
    "SeriesDescription": "Canary series",
    "ReferringPhysicianName": "Canary^Doctor",
}


def damaged(folder: Path, kind: str) -> Path:
    """A series of a patient with one fault."""
    series = write_series(folder, **TAGS)
    files = sorted(series.iterdir())
    if kind == "truncated":
        files[2].write_bytes(files[2].read_bytes()[:-50])
    elif kind == "cut in the header":
        files[2].write_bytes(files[2].read_bytes()[:420])
    elif kind == "another size":
        write_slice(files[2], VOLUME[0][:3], (0, 0, 1), **TAGS)
    elif kind == "no position":
        write_slice(files[2], VOLUME[0], **TAGS)
    elif kind == "doubled":
        (series / "again.dcm").write_bytes(files[2].read_bytes())
    elif kind == "noise":
        content = bytearray(files[2].read_bytes())
        at = content.index(b"PN")
        content[at : at + 2] = b"DS"
        files[2].write_bytes(bytes(content))
    elif kind == "a name in another value":
        content = bytearray(files[2].read_bytes())
        at = content.index(b"\x02\x00\x10\x00UI") + 6
        content[at : at + 2] = (700).to_bytes(2, "little")
        files[2].write_bytes(bytes(content))
    return series


KINDS = (
    "truncated", "cut in the header", "another size", "no position", "doubled", "noise",
    "a name in another value",
)  # fmt: skip


def test_names_of_a_header_are_nowhere(
    start: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    client = start()
    shown, refused = [], 0
    for k, kind in enumerate(KINDS):
        series = damaged(tmp_path / str(k) / "series", kind)
        files = [(f"Canary^Jane/{f.name}", f.read_bytes()) for f in sorted(series.iterdir())]
        answers = [client.send(*files), client.send(("Canary.zip", zipped(series)))]
        refused += sum(answer.status_code == 422 for answer in answers)
        shown += [answer.text for answer in answers]
    assert refused >= 2 * (len(KINDS) - 2)
    assert str(tmp_path) not in "".join(shown)
    series = write_placed(tmp_path / "whole", **TAGS)
    job = client.done(("Canary^Jane.zip", zipped(series)))
    shown.append(str(job))
    # An archive files the object by its patient.
    assert b"Canary^Jane" in client.result(job, "dicom-seg")
    assert b"Canary Hospital" not in client.result(job, "dicom-seg")
    for name in sorted({*job["results"]} - {"dicom-seg"}):
        answer = client.http.get(job["results"][name])
        shown += [str(answer.headers), answer.content.decode("latin-1")]
    shown.append(gzip.decompress(client.result(job, "labels")).decode("latin-1"))
    home = client.service.folder
    shown += [str(path.relative_to(home)) for path in home.rglob("*")]
    shown += [path.read_bytes().decode("latin-1") for path in home.glob("jobs.sqlite*")]
    shown += [record.getMessage() for record in caplog.records]
    shown += [str(warning.message) for warning in recwarn]
    shown += capfd.readouterr()
    assert any("done in" in text for text in shown), "the log is looked at"
    assert CANARY.lower() not in "\n".join(shown).lower()


def test_a_file_name_of_a_client_becomes_no_path(start: Start, tmp_path: Path) -> None:
    client = start()
    assert client.service.folder.stat().st_mode & 0o077 == 0, "for its owner alone"
    content = np.zeros((20, 24), np.float32)
    np.save(tmp_path / "a.npy", content)
    for name in ("../../../evil.npy", "/etc/evil.npy", "a\0.npy", "x" * 300 + ".npy"):
        job = client.done((name, (tmp_path / "a.npy").read_bytes()))
        home = client.service.folder / "jobs" / job["id"] / "input"
        assert [path.name for path in home.iterdir()] == ["000001.npy"]
    assert list(tmp_path.rglob("*evil*")) == []


def test_messages_have_neither_paths_nor_texts_of_libraries(tmp_path: Path) -> None:
    try:
        try:
            raise ValueError("could not convert 'Canary^Jane'")
        except ValueError as cause:
            raise InputError(
                "reading an image",
                file=tmp_path / "Canary.dcm",
                expected="a number",
                found=f"ValueError: {cause}",
                remedy=f"look at {tmp_path}/input/1.dcm",
            ) from cause
    except InputError as error:
        message = public_message(error, tmp_path)
    assert message.status == 422
    assert "Canary" not in message.text
    assert str(tmp_path) not in message.text
    assert "expected: a number" in message.text
    unexpected = public_message(RuntimeError("Canary"), tmp_path)
    assert unexpected.status == 500
    assert "Canary" not in unexpected.text
    assert public_message(SegweaveError("writing"), tmp_path).status == 500
    assert public_message(OSError(28, "No space left on device"), tmp_path).status == 507


def test_what_is_logged_of_an_unexpected_error_is_where_it_was() -> None:
    try:
        raise KeyError("Canary")
    except KeyError as error:
        text = where(error)
    assert re.fullmatch(r"KeyError at test_private\.py:\d+", text)


def test_an_unexpected_error_is_500_without_its_text(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Canary")

    monkeypatch.setattr(client.service, "get", broken)
    answer = client.http.get("/jobs/abc")
    assert answer.status_code == 500
    assert "unexpected RuntimeError" in caplog.text
    assert CANARY not in answer.text + caplog.text
