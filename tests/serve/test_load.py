"""Many clients, and requests that are nearly right; benchmarks/service.py does it at length."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.small import write_volume

from .conftest import Start


def test_every_job_of_many_clients_ends_with_a_short_queue(start: Start, tmp_path: Path) -> None:
    client = start(queue=3)
    volume = write_volume(tmp_path / "v.nii", (20, 24, 4)).read_bytes()
    codes: Counter[int] = Counter()
    ids: list[str] = []
    most = 0

    def send_three() -> None:
        for _ in range(3):
            while (answer := client.send(("v.nii", volume))).status_code == 429:
                codes[429] += 1
                assert answer.headers["Retry-After"] == "2"
                time.sleep(0.01)
            codes[answer.status_code] += 1
            ids.append(answer.json()["id"])

    threads = [threading.Thread(target=send_three) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, client.http.get("/health").json()["waiting"])
        time.sleep(0.005)
    assert (codes[202], set(codes) <= {202, 429}) == (18, True), codes
    assert most <= 3
    assert len(set(ids)) == 18
    until = time.monotonic() + 60
    while not all(job.is_over for job in client.service.table.every()):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert {client.service.get(id).state for id in ids} == {"done"}


def test_malformed_requests_are_never_500(
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("schemathesis")
    pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import service

    faults = service.requests(tmp_path / "jobs", folders[0], 300, 2, seed=1, verbose=False)
    for name in ("service", "_service_load", "_service_requests", "_service_images"):
        sys.modules.pop(name, None)
    shown = capsys.readouterr().out
    assert faults == 0, shown
    assert "| requests | 300 |" in shown
