"""`segweave watch` on a folder and on a real archive."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest

from segweave.archive.sources import FolderSource
from segweave.formats import read_case
from segweave.prediction import load

from .conftest import Orthanc, write_sample
from .test_send import run


def ledger(state: Path, capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capfd.readouterr()
    assert run("watch", "--list", "--json", "--state", str(state)) == 0
    return json.loads(capfd.readouterr().out)


def test_a_folder_is_watched(model: Path, tmp_path: Path, capfd) -> None:
    inbox, out, state = tmp_path / "in", tmp_path / "out", tmp_path / "state"
    # Two series in one folder, as archives drop them; a third that does not fit.
    first, second = (write_sample(tmp_path / name, seed=k) for k, name in enumerate("ab"))
    other = write_sample(tmp_path / "c", Modality="MR")
    inbox.mkdir()
    for sample in (first, second, other):
        for file in sample.folder.iterdir():
            (inbox / f"{sample.series[-9:]}-{file.name}").write_bytes(file.read_bytes())
    (inbox / "half.dcm").write_bytes(next(first.folder.iterdir()).read_bytes()[:200])
    command = ["watch", str(model), str(inbox), "--out", str(out), "--state", str(state)]
    command += ["--modality", "CT", "--attribute", "Manufacturer=nob*", "--format", "nifti"]
    command += ["--settle", "0", "--once", "--device", "cpu"]
    assert run(*command) == 0
    before = {path: path.stat().st_mtime_ns for path in sorted(out.glob("*.nii.gz"))}
    assert run(*command) == 0, "nothing is left to do"
    assert {path: path.stat().st_mtime_ns for path in sorted(out.glob("*"))} == before
    assert sorted(path.name.rpartition(".nii")[0][:-9] for path in before) == sorted(
        [first.series, second.series]
    )
    expected = load(model, device="cpu").session().predict(read_case(first.folder)).labels
    file = next(path for path in before if path.name.startswith(first.series + "."))
    found = np.asarray(nibabel.load(file).dataobj)
    assert sorted(np.bincount(found.ravel().astype(int))) == sorted(np.bincount(expected.ravel()))
    shown = "".join(capfd.readouterr())
    assert shown.count("segmented in") == 2
    entries = ledger(state, capfd)
    assert [entry["state"] for entry in entries] == ["stored", "stored"]
    assert run("watch", "--list", "--state", str(state)) == 0
    shown += str(entries) + "".join(capfd.readouterr())
    shown += "".join(str(path) for path in [*state.rglob("*"), *out.rglob("*")])
    shown += (state / "ledger.sqlite").read_bytes().decode("latin-1")
    assert "canary" not in shown.lower()
    assert state.stat().st_mode & 0o077 == 0, "for its owner alone"


def test_a_damaged_series_is_reported_without_names(model: Path, tmp_path: Path, capfd) -> None:
    sample = write_sample(tmp_path / "in" / "Canary^Jane")
    for file in sorted(sample.folder.iterdir())[1:3]:
        file.write_bytes(file.read_bytes()[:-30])
    command = ["watch", str(model), str(tmp_path / "in"), "--state", str(tmp_path / "state")]
    command += ["--format", "nifti", "--settle", "0", "--once", "--device", "cpu", "--tries", "2"]
    for state in ("waiting", "failed"):
        assert run(*command) == 1
        assert "--list" in capfd.readouterr().err
        (entry,) = ledger(tmp_path / "state", capfd)
        assert entry["state"] == state
        assert "canary" not in str(entry).lower()
    assert run(*command) == 0, "it was given up"
    assert (tmp_path / "in-segmentations").is_dir()


def test_what_is_wrong_is_said(model: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "in").mkdir()
    here = [str(model), str(tmp_path / "in")]
    for arguments, words in (
        (["watch"], "MODEL and SOURCE"),
        (["watch", *here, "--out", here[1]], "another folder"),
        (["watch", str(model), str(tmp_path / "no")], "nothing there"),
        (["watch", *here, "--attribute", "KVP"], "NAME=PATTERN"),
        (["watch", *here, "--attribute", "Kvp=1"], "KVP"),
        (["watch", str(model), "http://a:b@127.0.0.1:1/"], "--login-file"),
        (["watch", str(model), "http://127.0.0.1:1/x", "--format", "nifti"], "dicom-seg"),
        (["watch", "--list", "--state", str(tmp_path / "no")], "--state"),
        (["send", str(tmp_path / "in"), "--to", "127.0.0.1:9"], "DICOM files"),
        (["send", str(model), "--to", "somewhere"], "host:port"),
        (["send", str(model), "--to", "a:1", "--aet", "x" * 17], "AE title"),
    ):
        assert run(*arguments) == 2, arguments
        shown = capfd.readouterr()
        assert words in shown.err, (arguments, shown.err)
    once = ["watch", str(model), "http://127.0.0.1:9/dicom-web", "--once"]
    assert run(*once, "--state", str(tmp_path / "state"), "--device", "cpu") == 1
    assert "Connection refused" in capfd.readouterr().err
    sample = write_sample(tmp_path / "sample")
    for to in ("127.0.0.1:9", "http://127.0.0.1:9/dicom-web"):
        assert run("send", str(sample.folder), "--to", to) == 1
        assert "what to do: start it" in capfd.readouterr().err


def test_files_that_are_being_copied_settle(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "in")
    source = FolderSource(tmp_path / "in", tmp_path / "out")
    (before,) = source.look()
    assert source.look() == [before]
    file = max(sample.folder.iterdir())
    content = file.read_bytes()
    file.write_bytes(content[:300])
    (shorter,) = source.look()
    assert shorter.signature != before.signature
    assert shorter.slices == 3, "the header of a file that is being copied can't be read"
    file.write_bytes(content)
    (again,) = source.look()
    assert (again.slices, again.signature != shorter.signature) == (4, True)
    assert abs(again.since - time.time()) < 60


@dataclass
class Proxy:
    """Stands before the archive: passes requests on, unless it holds what is to be stored."""

    archive: Orthanc
    port: int = 0
    hold: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    down: threading.Event = field(default_factory=threading.Event)
    posts: list[bool] = field(default_factory=list)

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length) if length else self.chunks()
                if self.command == "POST":
                    if proxy.hold.is_set():
                        # The client is killed now: nothing reaches the archive.
                        proxy.held.set()
                        while proxy.hold.is_set():
                            time.sleep(0.02)
                        return
                    proxy.posts.append(True)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() in ("accept", "content-type")
                }
                url = f"http://127.0.0.1:{proxy.archive.http}{self.path}"
                try:
                    answer = httpx.request(
                        self.command, url, content=body, headers=headers, trust_env=False
                    )
                except httpx.HTTPError:
                    # As if nothing listened.
                    proxy.down.set()
                    self.close_connection = True
                    return
                self.send_response(answer.status_code)
                for name in ("content-type",):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = answer  # noqa: N815

            def chunks(self) -> bytes:
                body = b""
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return body
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"


@pytest.fixture
def proxy(orthanc: Orthanc) -> Iterator[Proxy]:
    with Proxy(orthanc) as one:
        yield one


def segmentations(archive: Orthanc, study: str) -> list[dict[str, Any]]:
    return archive.find("Series", StudyInstanceUID=study, Modality="SEG")


def test_an_archive_is_watched_through_a_kill_and_a_stop(
    orthanc: Orthanc, proxy: Proxy, model: Path, tmp_path: Path, capfd
) -> None:
    sample = write_sample(tmp_path / "series", seed=5, SeriesDescription="Axial Canary liver")
    assert run("send", str(sample.folder), "--to", orthanc.url, "-q") == 0
    state, log = tmp_path / "state", tmp_path / "log"
    command = ["watch", str(model), proxy.url, "--state", str(state), "--device", "cpu"]
    command += ["--settle", "0", "--every", "0.2", "--description", "*liver"]
    proxy.hold.set()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "segweave", *command],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert proxy.held.wait(60), log.read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (entry,) = ledger(state, capfd)
    assert (entry["state"], segmentations(orthanc, sample.study)) == ("claimed", [])
    made = list((state / "results").iterdir())
    assert len(made) == 1
    # The archive is down at the next start: it waits, says so, and goes on when it is back.
    proxy.hold.clear()
    orthanc.stop()

    def back() -> None:
        assert proxy.down.wait(60)
        orthanc.start()
        wait_for(lambda: stored_in(state))
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=back)
    helper.start()
    assert run(*command) == 0
    helper.join()
    shown = "".join(capfd.readouterr())
    for words in ("does not answer, waiting", "answers again", ", stored: ", "ending after"):
        assert shown.count(words) == 1, shown
    (entry,) = ledger(state, capfd)
    assert (entry["state"], entry["attempts"]) == ("stored", 2)
    # Once, under the study of the images, and it refers to them.
    (series,) = segmentations(orthanc, sample.study)
    (instance,) = series["Instances"]
    tags = orthanc.ask(f"/instances/{instance}/simplified-tags")
    assert tags["SOPInstanceUID"] == entry["object"]
    (referenced,) = tags["ReferencedSeriesSequence"]
    assert referenced["SeriesInstanceUID"] == sample.series
    used = {one["ReferencedSOPInstanceUID"] for one in referenced["ReferencedInstanceSequence"]}
    assert used == set(sample.objects)
    assert len(proxy.posts) == 1
    # A ledger that was lost does not make a second object.
    other = ["--state", str(tmp_path / "other"), "--once"]
    assert run(*command[:3], *other, *command[5:]) == 0
    assert len(proxy.posts) == 1
    assert "there already" in capfd.readouterr().out
    texts = log.read_text() + shown + str(entry)
    assert "Canary" not in texts
    assert "Traceback" not in texts


def stored_in(state: Path) -> bool:
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        query = "select count(*) from series where state = 'stored'"
        return connection.execute(query).fetchone()[0] == 1


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
