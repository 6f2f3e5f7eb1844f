"""The real command: killed while it works, asked by its own client, and stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from segweave.cli import main
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats import read_case
from segweave.serve.client import RemoteSession
from segweave.serve.run import serve
from tests.small import files_of, write_volume

TOKEN = "0123456789abcdef-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Server:
    """`segweave serve` in a process."""

    def __init__(self, folders: list[Path], home: Path) -> None:
        self.log = home / f"log{len(list(home.glob('log*')))}"
        (home / "token").write_text(TOKEN + "\n")
        arguments = [*map(str, folders), "--port", "0", "--device", "cpu"]
        arguments += ["--jobs-folder", str(home / "jobs"), "--token-file", str(home / "token")]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "segweave", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        line = self.process.stdout.readline()
        assert line.startswith("address:"), self.log.read_text()
        self.url = line.split()[1]

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, headers=HEADERS, timeout=30)

    def send(self, file: Path) -> str:
        files = {"files": ("Canary^Jane.nii", file.read_bytes())}
        answer = httpx.post(
            f"{self.url}/jobs", files=files, data={"model": "grey"}, headers=HEADERS, timeout=60
        )
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def wait(self, id: str, until: str) -> dict[str, Any]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            job = self.get(f"/jobs/{id}").json()
            if job["state"] == until and (until != "running" or job["progress"]["done"]):
                return job
            assert job["state"] != "failed", job
            time.sleep(0.01)
        raise AssertionError(job)


@pytest.fixture(scope="module")
def home(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def killed(folders: list[Path], home: Path) -> dict[str, Path]:
    """Id of a job → its image: accepted by a server that was killed twice in the first one."""
    server = Server(folders, home)
    sizes = {"long": (20, 24, 600), "a": (20, 24, 2), "b": (20, 24, 2)}
    images = [write_volume(home / f"{name}.nii", size) for name, size in sizes.items()]
    jobs = {server.send(image): image for image in images}
    for _ in range(2):
        server.wait(next(iter(jobs)), "running")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert "done" not in server.log.read_text()
        if len(list(home.glob("log*"))) < 2:
            server = Server(folders, home)
    return jobs


@pytest.fixture(scope="module")
def server(killed: dict[str, Path], folders: list[Path], home: Path) -> Iterator[Server]:
    """The server that was started after the kill."""
    again = Server(folders, home)
    yield again
    again.process.kill()
    again.process.wait()


def test_every_job_ends_once_after_a_kill(server: Server, killed, models, home: Path) -> None:
    for id, image in killed.items():
        job = server.wait(id, "done")
        content = server.get(job["results"]["array"]).content
        expected = models["grey"].session.predict(read_case(image)).labels
        assert np.array_equal(np.load(io.BytesIO(content))["label"], expected)
    logs = "".join(log.read_text() for log in sorted(home.glob("log*")))
    for number, id in enumerate(killed):
        assert logs.count(f"job {id}: accepted") == logs.count(f"job {id}: done") == 1
        assert logs.count(f"job {id}: was interrupted") == 2 * (number == 0)
    assert "Canary" not in logs
    assert "Traceback" not in logs
    assert sorted(path.name for path in (home / "jobs" / "jobs").iterdir()) == sorted(killed)


def test_the_client_writes_the_files_of_the_local_command(
    server: Server, folders: list[Path], home: Path, tmp_path: Path
) -> None:
    write_volume(tmp_path / "scans" / "b" / "v.nii.gz", (20, 24, 3))
    write_volume(tmp_path / "scans" / "w.nii", (24, 20, 3), seed=1)
    (tmp_path / "scans" / "broken.nii").write_bytes(b"x" * 400)
    common = [str(tmp_path / "scans"), "--probabilities", "--quiet", "--out"]
    far = ["--server", server.url, "--token-file", str(home / "token")]
    ends = []
    for model, out, more in ((folders[0], "near", ["--device", "cpu"]), ("grey", "far", far)):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(model), *common, str(tmp_path / out), *more])
        ends.append(end.value.code)
    near, remote = files_of(tmp_path / "near"), files_of(tmp_path / "far")
    summaries = [json.loads(files.pop("predictions.json")) for files in (near, remote)]
    for summary in summaries:
        for case in summary["cases"]:
            del case["seconds"]
    assert ends == [2, 2], "the broken file is reported"
    assert len(near) == 6
    assert near == remote
    assert summaries[0] == summaries[1]


def test_the_client_says_what_is_wrong(server: Server, tmp_path: Path) -> None:
    case = read_case(write_volume(tmp_path / "v.nii", (20, 24, 2)))
    with pytest.raises(UsageError, match="did you mean grey"):
        RemoteSession(server.url, "gray", token=TOKEN)
    with pytest.raises(InputError, match="TOKEN"):
        RemoteSession(server.url, "grey")
    with pytest.raises(UsageError, match="an address such as"):
        RemoteSession("file:///etc/passwd", "grey")
    with pytest.raises(SegweaveError, match="segweave serve MODEL"):
        RemoteSession("http://127.0.0.1:9", "grey")
    colour = RemoteSession(server.url, "colour", token=TOKEN)
    with pytest.raises(InputError, match="channels"):
        colour.predict(case)
    for options in (["--flips", "rows"], ["--device", "cpu"], ["--tiles"], ["--with", "x"]):
        with pytest.raises(SystemExit) as end:
            main(["predict", "grey", "x", "--out", str(tmp_path), "--server", "u", *options])
        assert end.value.code == 2


def test_a_port_that_is_taken_is_reported(
    server: Server, folders: list[Path], tmp_path: Path
) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(SegweaveError, match="--port 0"):
        serve(folders, port=port, folder=tmp_path)


def test_a_signal_ends_it_in_order(server: Server, home: Path) -> None:
    id = server.send(write_volume(home / "last.nii", (20, 24, 3000)))
    server.wait(id, "running")
    with httpx.stream("GET", f"{server.url}/jobs/{id}/events", headers=HEADERS) as events:
        assert next(events.iter_lines()) == "event: progress"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    import sqlite3

    with sqlite3.connect(home / "jobs" / "jobs.sqlite") as connection:
        query = "select state, attempts from jobs where id = ?"
        assert connection.execute(query, (id,)).fetchone() == ("queued", 0)
    assert "Traceback" not in server.log.read_text()
