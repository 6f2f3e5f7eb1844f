"""Progress: a bar in a terminal, few lines elsewhere."""

from __future__ import annotations

import pytest

from segweave.cli.show import ProgressLines, counter


def test_lines_come_per_tenth_and_per_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = ProgressLines("training", clock=lambda: now)
    for step in range(1, 101):
        lines(step, 1000, f"loss {step}")
    assert capsys.readouterr().err == (
        "training: 1 of 1000 (loss 1)\ntraining: 100 of 1000 (loss 100)\n"
    )
    now = 31.0
    lines(101, 1000, "loss 101")
    now = 60.0
    lines(102, 1000, "")
    assert capsys.readouterr().err == "training: 101 of 1000 (loss 101)\n"
    # Another total is another kind of work.
    lines(1, 4, "reading images")
    assert capsys.readouterr().err == "training: 1 of 4 (reading images)\n"


def test_outside_a_terminal_progress_is_lines_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with counter("scoring", show=True) as progress:
        assert progress is not None
        progress(1, 2, "case [a]")
        progress(2, 2, "")
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "scoring: 1 of 2 (case [a])\nscoring: 2 of 2\n")
    with counter("scoring", show=False) as progress:
        assert progress is None
