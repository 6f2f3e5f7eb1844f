"""A real archive (Orthanc), a tiny model, and series of phantoms to put into it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra dicom is not installed")

from pydicom.uid import generate_uid

from tests.formats.test_dicom import write_series
from tests.prediction.tiny import recipe_of, unet, write_model

PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
CANARY = {
    "PatientName": "Canary^Jane",
    "PatientID": "CanaryID7",
    "InstitutionName": "Canary Hospital",
    "SeriesDescription": "Axial Canary",
}


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@dataclass
class Orthanc:
    """The archive in a process."""

    http: int
    dicom: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def node(self) -> str:
        return f"127.0.0.1:{self.dicom}"

    def start(self) -> None:
        import httpx

        with (self.folder / "log").open("ab") as log:
            command = [shutil.which("Orthanc"), str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/studies", trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, path: str, **query: str) -> Any:
        import httpx

        answer = httpx.get(f"http://127.0.0.1:{self.http}{path}", params=query, trust_env=False)
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.content

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        import httpx

        answer = httpx.post(
            f"http://127.0.0.1:{self.http}/tools/find",
            json={"Level": level, "Query": query, "Expand": True},
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An empty Orthanc with DICOMweb on loopback; skipped where it is not installed, but in CI."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as archive:
        yield archive


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """The archive, with what it stores in `folder`."""
    plugins = [p / name for p in PLUGINS for name in ("libOrthancDicomWeb.so",)]
    plugins += sorted(PLUGINS[1].glob("libOrthancDicomWeb.so*"))
    plugin = next((p for p in plugins if p.exists()), None)
    if shutil.which("Orthanc") is None or plugin is None:
        message = "Orthanc with its DICOMweb plug-in is not installed (apt: orthanc-dicomweb)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    archive = Orthanc(free_port(), free_port(), folder)
    settings = {
        "Name": "TEST",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": archive.http,
        "DicomPort": archive.dicom,
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that segments one grey channel into two classes."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_model(folder, unet(), recipe_of())


@dataclass(frozen=True)
class Sample:
    """A series on the disk and its UIDs."""

    folder: Path
    study: str
    series: str
    objects: tuple[str, ...]


def write_sample(folder: Path, slices: int = 4, seed: int = 0, **tags: Any) -> Sample:
    """A CT series of noise with all that an archive needs, and the name of a patient."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-900, 900, (slices, 12, 14)).astype(np.int16)
    study, series = generate_uid(), generate_uid()
    about = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": generate_uid(),
        "StudyID": "1",
        "SeriesNumber": 3,
        "StudyDate": "20240102",
        "StudyTime": "101112",
        "AccessionNumber": "",
        "ReferringPhysicianName": "Canary^Doctor",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "BodyPartExamined": "ABDOMEN",
        "Manufacturer": "Nobody",
    }
    write_series(folder, values, **(CANARY | about | tags))
    import pydicom

    objects = tuple(
        str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        for file in sorted(folder.iterdir())
    )
    return Sample(folder, study, series, objects)
