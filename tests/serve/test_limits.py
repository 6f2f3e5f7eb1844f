"""Every limit is refused with its status code and a message, and nothing of it is left."""

from __future__ import annotations

import io
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.errors import InputError, MissingExtraError, UsageError
from segweave.prediction import Session
from segweave.serve.limits import Limits
from segweave.serve.models import load_models
from segweave.serve.run import serve
from segweave.serve.service import Service
from segweave.serve.token import read_token
from tests.formats.test_dicom import write_series
from tests.small import write_volume

from .conftest import Client, Start
from .test_jobs_api import png, zipped


def packed(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def volume(tmp_path: Path) -> bytes:
    return write_volume(tmp_path / "v.nii", (20, 24, 3)).read_bytes()


def nothing_left(client: Client) -> None:
    assert list((client.service.folder / "jobs").glob("*")) == []
    assert client.service.table.every() == []


def test_what_is_too_much_is_413(start: Start, volume: bytes, tmp_path: Path) -> None:
    series = write_series(tmp_path / "series")
    slices = [(f.name, f.read_bytes()) for f in sorted(series.iterdir())]
    small = start(bytes=4096, files=3, voxels=1000, ratio=50)
    for answer, words in (
        (small.send(("a.nii", bytes(5000))), "at most 4 KiB"),
        (small.send(("a.nii", bytes(3 << 20))), "at most 4 KiB"),
        (small.send(("a.nii", bytes(8 << 20))), "at most 4 KiB"),
        (small.send(("a.zip", packed(("a.nii", bytes(50_000))))), "at most 4 KiB"),
        (small.send(*slices), "at most 3 files"),
        (small.send(("a.zip", packed(*[(f"{k}", b"") for k in range(50)]))), "at most 3 files"),
    ):
        small.refused(413, words, answer=answer)
    nothing_left(small)
    other = start(folder="other", voxels=1000)
    other.refused(413, "at most 1,000 voxels", answer=other.send(("a.nii", volume)))
    bomb = packed(("a.nii", bytes(65 << 20)))
    other.refused(413, "200 times", answer=other.send(("a.zip", bomb)))
    stream = io.BytesIO()
    np.savez_compressed(stream, image=np.zeros((3, 100, 100), np.float32))
    other.refused(413, "at most", answer=other.send(("a.npz", stream.getvalue())))
    nothing_left(other)


def test_what_is_of_another_kind_is_415_or_422(start: Start, volume: bytes) -> None:
    client = start()
    http = client.http
    client.refused(415, "another kind", answer=client.send(("a.exe", b"MZ")))
    client.refused(415, "another kind", answer=client.send(("a.zip", packed(("a.txt", b"x")))))
    client.refused(415, "multipart/form-data", answer=http.post("/jobs", json={"files": 1}))
    for sent in (
        client.send(),
        client.send(("a.nii", b"")),
        client.send(("a.nii", volume[:400])),
        client.send(("a.png", png()), model="grey"),
        client.send(("a.nii", volume), ("b.nii", volume)),
        client.send(("a.nii", volume), model="../../etc"),
        client.send(("a.nii", volume), geometry="round"),
        client.send(("a.nii", volume), format="gif"),
        client.send(("a.nii", volume), probabilities="perhaps"),
        client.send(("a.nii", volume), uncertainty="mutual-information"),
        client.send(("a.nii", volume), colour="1"),
        client.send(("a.zip", packed(("a.nii", volume))[:-30])),
        client.send(("a.zip", packed(("a.nii", volume), method=zipfile.ZIP_LZMA))),
        client.send(("a.zip", packed())),
    ):
        assert sent.status_code in (415, 422), sent.text
        assert "\n" in sent.json()["message"]
    wrong = http.post("/jobs", content=b"--x", headers={"content-type": "multipart/form-data"})
    client.refused(400, "a whole form", answer=wrong)
    nothing_left(client)


class _Slow:
    """A session that waits until it is let go."""

    def __init__(self, session: Any) -> None:
        self.session, self.go = session, threading.Event()
        self.target = session.target

    def check(self, case: Any) -> None:
        self.session.check(case)

    def predict(self, case: Any, *, probabilities: bool, uncertainty: Any, progress: Any) -> Any:
        while not self.go.wait(0.02):
            progress(0, case.slices, "")
        return self.session.predict(case, probabilities=probabilities, progress=progress)


@pytest.fixture
def slow(models, monkeypatch: pytest.MonkeyPatch) -> _Slow:
    session = _Slow(models["grey"].session)
    monkeypatch.setitem(models, "grey", type(models["grey"])("grey", session, {}))  # type: ignore[arg-type]
    return session


def running(client: Client, answer: Any) -> None:
    until = time.monotonic() + 30
    while client.service.get(answer.json()["id"]).state != "running":
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_full_queue_is_429_and_drains(start: Start, slow: _Slow, volume: bytes) -> None:
    client = start(queue=2)
    first = client.send(("a.nii", volume))
    running(client, first)
    more = [client.send(("a.nii", volume)) for _ in range(2)]
    busy = client.send(("a.nii", volume))
    client.refused(429, "at most 2 jobs", answer=busy)
    assert busy.headers["retry-after"].isdigit()
    ahead = [client.http.get(f"/jobs/{one.json()['id']}").json()["ahead"] for one in more]
    assert ahead == [0, 1]
    waiting = client.http.get(f"/jobs/{more[0].json()['id']}/results/labels")
    client.refused(409, "queued", answer=waiting)
    assert client.http.delete(f"/jobs/{more[1].json()['id']}").status_code == 204
    slow.go.set()
    assert client.wait(first)["state"] == client.wait(more[0])["state"] == "done"
    assert client.service.table.waiting() == 0


def test_a_prediction_that_takes_too_long_fails(start: Start, slow: _Slow, volume: bytes) -> None:
    client = start(seconds=0.1)
    job = client.wait(client.send(("a.nii", volume)))
    assert (job["state"], job["error"]["status"]) == ("failed", 422)
    assert "at most 0.1 seconds" in job["error"]["message"]


def test_a_running_job_that_is_deleted_stops(start: Start, slow: _Slow, volume: bytes) -> None:
    client = start()
    first = client.send(("a.nii", volume))
    running(client, first)
    client.http.delete(f"/jobs/{first.json()['id']}")
    second = client.send(("a.nii", volume))
    running(client, second)
    assert list((client.service.folder / "jobs").iterdir()) == [
        client.service.folder / "jobs" / second.json()["id"]
    ]


def test_a_stopped_service_answers_503(start: Start, volume: bytes) -> None:
    client = start()
    client.service.stop()
    client.refused(503, "stopping", answer=client.send(("a.nii", volume)))
    assert client.http.get("/health").json()["status"] == "stopping"


def test_no_space_is_507(start: Start, volume: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    client = start()
    full = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("segweave.serve.service.shutil.disk_usage", lambda _: full)
    client.refused(507, "free some space", answer=client.send(("a.nii", volume)))


def test_who_may_ask(start: Start) -> None:
    open_, closed = start(), start(token="t" * 20, folder="other")
    get, path = open_.http.get, "/models"
    assert get(path, headers={"host": "localhost:8000"}).status_code == 200
    assert get(path, headers={"host": "[::1]:80"}).status_code == 200
    assert get(path, headers={"host": "evil.example"}).status_code == 421
    assert get(path, headers={"origin": "http://evil.example"}).status_code == 403
    assert get(path, headers={"origin": "null"}).status_code == 403
    assert get(path, headers={"origin": "http://127.0.0.1"}).status_code == 200
    get = closed.http.get
    assert get(path).headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer " + "u" * 20, "Bearer", "Basic " + "t" * 20, "t" * 20, "Bearer é"):
        assert get(path, headers={"authorization": wrong.encode("utf-8")}).status_code == 401
    right = {"authorization": "bearer " + "t" * 20, "host": "segweave.example"}
    assert get(path, headers=right).status_code == 200
    assert get("/openapi.json").status_code == 401
    assert get("/").status_code == get("/health").status_code == 200


def test_another_address_needs_a_token(tmp_path: Path, folders: list[Path]) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UsageError, match="token-file"):
            serve(folders, host=host, port=0, folder=tmp_path / "jobs")
    (tmp_path / "short").write_text("secret\n")
    for file in ("short", "missing"):
        with pytest.raises(InputError, match="reading a token"):
            read_token(tmp_path / file)
    assert not (tmp_path / "jobs").exists()


def test_without_the_extra_the_command_names_it(
    monkeypatch: pytest.MonkeyPatch, folders: list[Path]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"segweave\[serve\]"):
        serve(folders)


def test_a_network_that_needs_a_box_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, folders: list[Path]
) -> None:
    monkeypatch.setattr(Session, "prompt", "box")
    with pytest.raises(UsageError, match="a box around"):
        load_models(folders[:1], device="cpu")


def test_two_services_do_not_share_a_folder(start: Start, models, tmp_path: Path) -> None:
    start()
    with (
        pytest.raises(UsageError, match="another process"),
        Service(models, tmp_path / "jobs", Limits()),
    ):
        pass


PATHS = st.sampled_from(
    ["/jobs", "/jobs/{}", "/jobs/{}/events", "/jobs/{}/results/{}", "/jobs/{}/slices/{}", "/{}"]
)


@pytest.fixture(scope="module")
def shared(models, tmp_path_factory: pytest.TempPathFactory):
    from starlette.testclient import TestClient

    from segweave.serve.app import create_app

    folder = tmp_path_factory.mktemp("fuzz")
    service = Service(models, folder, Limits(bytes=1 << 20))
    app = create_app(service)
    with service, TestClient(app, base_url="http://127.0.0.1") as http:
        yield http


@settings(max_examples=60)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"]),
    path=PATHS,
    text=st.text(max_size=8),
    body=st.binary(max_size=200),
    kind=st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data", "text/plain"]),
)
def test_no_request_is_an_error_of_the_server(shared, method, path, text, body, kind) -> None:
    from urllib.parse import quote

    where = path.replace("{}", quote(text.encode("utf-8", "replace"), safe=""))
    framed = b"--x\r\n" + body if kind.endswith("=x") else body
    headers = {"content-type": kind}
    answer = shared.request(method, where, content=framed, headers=headers)
    assert answer.status_code < 500, (answer.status_code, where)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["a.nii", "a.nii.gz", "a.npz", "a.h5", "a.png", "a.dcm", "a.zip", "a"]),
    head=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"DICM"]),
    body=st.binary(max_size=300),
)
def test_no_file_is_an_error_of_the_server(shared, name, head, body) -> None:
    answer = shared.post("/jobs", files={"files": (name, head + body)}, data={"model": "grey"})
    assert answer.status_code in (415, 422), answer.text


def test_a_zip_of_a_series_with_a_damaged_slice_is_refused(start: Start, tmp_path: Path) -> None:
    series = write_series(tmp_path / "series")
    damaged = sorted(series.iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    client = start()
    client.refused(422, answer=client.send(("a.zip", zipped(series))))
    nothing_left(client)
