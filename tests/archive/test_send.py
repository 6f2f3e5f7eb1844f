"""What is sent is in the archive, and what is not is reported: nothing is lost in silence."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from segweave.archive import UnreachableError
from segweave.archive.send import parse_address, send
from segweave.cli import main
from segweave.errors import InputError, UsageError

from .conftest import Orthanc, write_sample


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    return end.value.code or 0


@pytest.mark.parametrize("way", ["store", "web"])
def test_a_folder_is_in_the_archive(orthanc: Orthanc, tmp_path: Path, way: str, capfd) -> None:
    sample = write_sample(tmp_path / "in" / "series")
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    to = orthanc.node if way == "store" else orthanc.url
    for _ in range(2):  # again does no harm
        assert run("send", str(tmp_path / "in"), "--to", to, "--called", "ARCHIVE", "-q") == 0
    found = orthanc.find("Series", SeriesInstanceUID=sample.series)
    assert len(found) == 1
    assert len(found[0]["Instances"]) == 4
    assert "Canary" not in "".join(capfd.readouterr())


class Node:
    """A DICOM node that refuses: it takes one kind, and answers with the given statuses."""

    def __init__(self, statuses: list[int | None], kinds: tuple[str, ...] = (CTImageStorage,)):
        from pynetdicom import AE, evt

        self.taken: list[str] = []
        self._statuses = statuses
        entity = AE(ae_title="NODE")
        entity.require_called_aet = True
        entity.add_supported_context("1.2.840.10008.1.1")
        for kind in kinds:
            entity.add_supported_context(kind, ExplicitVRLittleEndian)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.address = "{}:{}".format(*self.server.socket.getsockname())

    def _store(self, event: Any) -> int:
        status = self._statuses.pop(0) if self._statuses else 0
        if status is None:
            event.assoc.abort()
            return 0
        if status in (0, 0xB000):
            self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()


def test_every_file_is_accounted_for(tmp_path: Path, capfd) -> None:
    sample = write_sample(tmp_path / "s", slices=5)
    # Taken with a warning, the connection lost, out of resources, another kind, and taken.
    other = sorted(sample.folder.iterdir())[3]
    data = pydicom.dcmread(other)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.save_as(other)
    with Node([0xB000, None, 0, 0xA700]) as node:
        report = send([sample.folder], node.address, called="NODE")
        assert len(report.sent) == len(set(node.taken)) == 3
        assert len(report.warnings) == 1
        reasons = " ".join(str(error) for error in report.failures.values())
        assert "out of resources" in reasons
        assert "it refuses MR Image Storage as Explicit VR Little Endian" in reasons
        assert run("send", str(other), "--to", node.address, "--called", "NODE", "-q") == 1
        shown = capfd.readouterr()
        assert "has not taken 1 of 1 files" in shown.err
        assert "sent: 0 files" in shown.out
        with pytest.raises(UnreachableError, match="--called"):
            send([sample.folder], node.address, called="ANOTHER")
    with Node([None] * 9) as node, pytest.raises(UnreachableError, match="again and again"):
        send([sample.folder / "IM000.dcm"], node.address, called="NODE")


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "s")
    file = sorted(sample.folder.iterdir())[0]
    content = file.read_bytes()
    for damaged, words in (
        (b"no DICOM" * 40, "something else"),
        (content.replace(b"\x02\x00\x10\x00UI\x14\x00", b"\x02\x00\x11\x00UI\x14\x00"), "Syntax"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=words):
            send([file], "127.0.0.1:9")
    with pytest.raises(InputError, match="something else"):
        send([tmp_path / "nothing"], "127.0.0.1:9")
    for address in ("a", "a:0", "a:99999", "a b:1", "[::1"):
        with pytest.raises(UsageError, match="host:port"):
            parse_address(address)
    assert parse_address("[::1]:4242") == ("::1", 4242)


def test_a_service_of_another_kind_is_named(orthanc: Orthanc, tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "s")
    for path in ("", "/system", "/no"):
        with pytest.raises(InputError, match="ends in /dicom-web"):
            send([sample.folder], f"http://127.0.0.1:{orthanc.http}{path}")


class Web:
    """A DICOMweb service that asks for a login and gives the answers of the test."""

    def __init__(self, login: str, answers: list[tuple[int, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content = 200, []
                if self.headers.get("Authorization") != login:
                    status = 401
                elif self.command == "POST":
                    status, content = answers.pop(0)
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def refusal(reason: int) -> dict[str, Any]:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def test_a_login_and_refusals_of_dicomweb(tmp_path: Path, capfd) -> None:
    sample = write_sample(tmp_path / "s", slices=4)
    answers = [(200, {}), (200, refusal(0x0111)), (202, refusal(0xA700)), (409, {})]
    with Web("Basic dXNlcjpwYXNzOndvcmQ=", answers) as web:
        to = ["send", str(sample.folder), "--to", web.url, "-q"]
        assert run(*to) == 2
        assert "--login-file FILE" in capfd.readouterr().err
        (tmp_path / "login").write_text("user:pass:word\n")
        assert run(*to, "--login-file", str(tmp_path / "login")) == 1
        shown = capfd.readouterr()
        assert "sent: 2 files" in shown.out
        assert "0xA700" in shown.err
        assert "status 409" in shown.err
        assert "pass:word" not in shown.err
    with Web("Bearer a-token", [(200, {})]) as web:
        (tmp_path / "login").write_text("a-token\n")
        one = ["send", str(sample.folder / "IM000.dcm"), "--to", web.url, "-q"]
        assert run(*one, "--login-file", str(tmp_path / "login")) == 0
        assert run(*one, "--login-file", str(tmp_path / "nothing")) == 2
