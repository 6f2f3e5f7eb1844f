"""What a killed service leaves is finished, given up or swept by the next; time runs out."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from segweave.errors import InputError
from segweave.serve.jobs import Job, JobTable
from segweave.serve.limits import Limits
from segweave.serve.service import Service
from tests.small import write_volume

from .conftest import Client, Start


@pytest.fixture
def table(tmp_path: Path):
    with_jobs = JobTable(tmp_path / "jobs.sqlite")
    for k in range(3):
        with_jobs.add(Job(f"job{k}", "queued", "grey", "input/1.nii", {}, float(k)))
    yield with_jobs
    with_jobs.close()


def test_jobs_are_taken_in_order_and_end_once(table: JobTable) -> None:
    taken = [table.take() for _ in range(4)]
    assert [job and job.id for job in taken] == ["job0", "job1", "job2", None]
    assert table.finish("job0", {"labels": "labels.png"})
    assert not table.finish("job0", {})
    assert not table.fail("job0", 422, "late")
    assert not table.put_back("job0")
    ended = table.get("job0")
    assert (ended.state, ended.results, ended.message) == ("done", {"labels": "labels.png"}, None)
    assert table.remove("job1")
    assert not table.finish("job1", {})
    assert table.get("job1") is None


def test_what_was_running_keeps_its_place_and_is_given_up_after_some_times(table: JobTable) -> None:
    for attempt in (1, 2, 3):
        job = table.take()
        assert (job.id, job.attempts) == ("job0", attempt)
        again, given_up = table.recover(most=2)
        assert (again, given_up) == ((["job0"], []) if attempt < 3 else ([], ["job0"]))
    assert table.get("job0").state == "failed"
    assert table.take().id == "job1"
    assert table.put_back("job1"), "a stop in order does not count"
    assert table.get("job1").attempts == 0


def test_another_file_is_not_taken_for_a_table(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no table " * 100)
    newer = sqlite3.connect(tmp_path / "b")
    newer.execute("pragma user_version=99")
    newer.close()
    for name in "ab":
        with pytest.raises(InputError, match="jobs-folder"):
            JobTable(tmp_path / name)


def test_a_start_finishes_what_was_left_and_sweeps_the_rest(
    start: Start, models, tmp_path: Path
) -> None:
    client = start()
    volume = write_volume(tmp_path / "v.nii", (20, 24, 2)).read_bytes()
    first = client.done(("v.nii", volume))
    service = client.service
    service.stop()
    service._worker.join()
    # What a kill leaves: a running job, an upload in progress, a folder without a job.
    service.table._do("update jobs set state = 'running' where id = ?", (first["id"],))
    for name in ("jobs/.segweave-x", "jobs/" + "0" * 32):
        (service.folder / name).mkdir()
    service.__exit__()
    with Service(models, service.folder, Limits()) as again:
        wait = Client(again, client.http)
        until = time.monotonic() + 30
        while not again.get(first["id"]).is_over:
            assert time.monotonic() < until
            time.sleep(0.01)
        job = again.get(first["id"])
        assert (job.state, job.attempts) == ("done", 2)
        assert [path.name for path in (again.folder / "jobs").iterdir() if path.is_dir()][-1:] == [
            first["id"]
        ]
        assert not (again.folder / "jobs" / ("0" * 32)).exists()
        assert wait.service is again


def test_a_job_of_a_model_that_is_gone_fails(start: Start) -> None:
    client = start()
    options = {"geometry": "check", "format": None, "probabilities": False}
    client.service.table.add(Job("0" * 32, "queued", "gone", "input/1.nii", options, 0.0))
    client.service._do(client.service.table.take())
    job = client.http.get("/jobs/" + "0" * 32).json()
    assert (job["state"], job["error"]["status"]) == ("failed", 422)
    assert "a model of this service" in job["error"]["message"]


def test_a_job_is_deleted_when_its_time_is_over(start: Start, tmp_path: Path) -> None:
    client = start(keep_hours=1)
    volume = write_volume(tmp_path / "v.nii", (20, 24, 2)).read_bytes()
    old, new = client.done(("v.nii", volume)), client.done(("v.nii", volume))
    table = client.service.table
    table._do("update jobs set ended = ended - 3601 where id = ?", (old["id"],))
    client.service._sweep()
    assert client.http.get(f"/jobs/{old['id']}").status_code == 404
    assert client.http.get(f"/jobs/{new['id']}").json()["state"] == "done"
    assert [path.name for path in (client.service.folder / "jobs").iterdir()] == [new["id"]]
