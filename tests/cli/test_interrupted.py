"""A full disk and Ctrl-C at the command, in separate processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small import SETS, files_of, write_volume

from .conftest import Command

TRAIN = [part for text in SETS for part in ("--set", text)]


def call(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The real command; with `limit`, no file may grow beyond that many bytes."""

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # A coverage run's own data file would meet the limit too.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-m", "segweave", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        preexec_fn=None if limit is None else small_disk,
    )


def ended_clearly(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file-size limits are a POSIX matter")
def test_a_full_disk_while_preparing_training_and_predicting(
    made: Path, tmp_path: Path, command: Command
) -> None:
    store, run, labels = tmp_path / "store", tmp_path / "run", tmp_path / "labels"
    done = call("prepare", "acdc", made / "raw", store, "-q", limit=2000)
    ended_clearly(done, 1)
    assert not store.exists()
    done = call(
        "train", "demo", "--store", made / "store", "--out", run, "-q", *TRAIN, limit=20_000
    )
    ended_clearly(done, 1)
    assert not (run / "model" / "card.json").exists()
    scan = write_volume(tmp_path / "scan.nii.gz")
    assert command("predict", made / "run", scan, "--out", labels, "-q").code == 0
    before = files_of(labels)
    done = call("predict", made / "run", scan, "--out", labels, "-q", "--force", limit=100)
    assert "unexpected" not in done.stderr
    ended_clearly(done, 1)
    assert files_of(labels) == before
    # With space again, the same commands go through.
    again = command("train", "demo", "--store", made / "store", "--out", run, "-q", *TRAIN)
    assert again.code == 0, again.err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are a POSIX matter")
def test_ctrl_c_stops_a_training_that_then_goes_on(
    made: Path, tmp_path: Path, command: Command
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "demo", "--store", made / "store", "--out", run, "-q", *TRAIN]
    arguments += ["--set", "training.epochs=40"]
    process = subprocess.Popen(
        [sys.executable, "-m", "segweave", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    metrics = run / "metrics.csv"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert not list(run.rglob(".writing-*"))
    again = command(*arguments)
    assert again.code == 0, again.err
    assert (run / "model" / "card.json").is_file()
