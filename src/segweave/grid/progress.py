"""How far trainings are: the one place that computes it, and the events that report it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segweave.recipes import Recipe
from segweave.runs.run_folder import CARD, METRICS, MODEL, read_rows


@dataclass(frozen=True)
class RunEvent:
    """What happened in a grid.

    Attributes:
        kind: "note" (for the reader), a run that "began" or "ended", or its "progress".
        run: name of the run; empty in a note.
        text: one line for the reader; empty in "began" and "progress".
        share: how much of the training is done, 0 to 1.
        loss: the last loss, None before the first step.
    """

    kind: Literal["note", "began", "progress", "ended"]
    run: str = ""
    text: str = ""
    share: float = 0.0
    loss: float | None = None


Report = Callable[[RunEvent], None]
"""Receives the events; the command draws bars and lines from them."""


def silent(event: RunEvent) -> None:
    """Report nothing."""


def finished(run: Path) -> bool:
    """Whether a training ended in this folder, which need not exist."""
    return (run / MODEL / CARD).is_file()


def share_done(run: Path, recipe: Recipe) -> tuple[float, float | None]:
    """How much of a training is done (0 to 1), and its last loss (None before the first step)."""
    rows = read_rows(run / METRICS)
    if not rows:
        return float(finished(run)), None
    steps = recipe.training.steps
    if steps is None:
        # Steps of an epoch are known once the second has begun.
        first = sum(row["epoch"] == rows[0]["epoch"] for row in rows)
        steps = first * (recipe.training.epochs or 1) + 1
    share = 1.0 if finished(run) else min(rows[-1]["step"] / steps, 1.0)
    return share, rows[-1]["loss"]


class Watch:
    """Reports how far trainings are, once a second at most."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._runs: dict[str, tuple[Path, Recipe]] = {}
        self._last = 0.0

    def add(self, name: str, run: Path, recipe: Recipe) -> None:
        """Watch a training from now on."""
        self._runs[name] = run, recipe
        self._report(RunEvent("began", name))

    def remove(self, name: str, text: str) -> None:
        """Watch it no longer; `text` is the line about its end."""
        del self._runs[name]
        self._report(RunEvent("ended", name, text))

    def look(self) -> None:
        """Report all, unless that was less than a second ago."""
        if time.monotonic() - self._last < 1.0:
            return
        self._last = time.monotonic()
        for name, (run, recipe) in self._runs.items():
            share, loss = share_done(run, recipe)
            self._report(RunEvent("progress", name, share=share, loss=loss))
