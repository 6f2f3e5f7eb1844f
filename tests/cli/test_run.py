"""Whatever ends a command is one message and an exit code; a traceback only where asked for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from segweave.cli.run import Settings, guarded
from segweave.errors import InputError, SegweaveError


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    Settings.debug = False


class StoppedError(SegweaveError):
    """As a training that Ctrl-C stopped."""

    exit_code = 130


def _stopped() -> None:
    raise StoppedError("training", remedy="the same command continues")


def _raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("reading", file="a.nii", found="nothing"), 2, ["error: reading", "a.nii"]),
        (SegweaveError("working"), 1, ["error: working"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (MemoryError(), 1, ["not enough memory", "--set training.batch_size"]),
        (OSError(errno.ENOSPC, "No space left", "x.npy"), 1, ["no space left", "x.npy"]),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, ["Permission denied: x"]),
        (RuntimeError("odd\nsecond line"), 1, ["unexpected RuntimeError: odd", "--debug"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_each_ending(
    error: BaseException, code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        guarded(_raises)(error)
    seen = capsys.readouterr()
    assert end.value.code == code
    assert seen.out == ""
    assert all(word in seen.err for word in words), seen.err
    assert "Traceback" not in seen.err
    assert "second line" not in seen.err


def test_a_stop_that_became_an_error_of_ours_is_an_interruption(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        guarded(_stopped)()
    assert end.value.code == 130
    assert "interrupted: training" in capsys.readouterr().err


def test_debug_shows_where_but_never_values(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        patient = "Jane Doe"
        raise ValueError(len(patient))

    Settings.debug = True
    with pytest.raises(SystemExit):
        guarded(fails)()
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "in fails" in text
    assert text.count("Jane Doe") <= 1, "only the line of source, no local values"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "from segweave.cli import main; main(['contexts', '--json'])"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141
