"""Reports how far a training is through the one progress callback."""

from __future__ import annotations

from segweave.runtime.progress import Progress


class TrainingProgress:
    """Calls a progress callback with optimiser steps; its text has loss and validation Dice."""

    def __init__(self, progress: Progress | None, steps: int) -> None:
        self._progress = progress
        self._steps = steps
        self._dice = ""

    def step(self, done: int, loss: float) -> None:
        """Report that one more step is done."""
        if self._progress is not None:
            self._progress(done, self._steps, f"loss {loss:.4f}{self._dice}")

    def scores(self, scores: dict[str, float]) -> None:
        """Note new validation scores."""
        if "dice" in scores:
            self._dice = f", validation Dice {scores['dice']:.4f}"
