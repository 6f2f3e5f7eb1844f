"""Reads the folder that one training leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segweave.errors import InputError, UsageError, nearest
from segweave.recipes import Recipe, load_recipe
from segweave.runs.layout import RECIPE, WEIGHTS, RunLayout
from segweave.runs.metrics_file import read_rows
from segweave.storage import read_json

if TYPE_CHECKING:
    from torch import Tensor


class Run:
    """Reads a run folder.

    Attributes:
        folder: the run folder.
        layout: the paths of its files.

    Raises InputError where `folder` is not a run folder, and where something is read that the
    training has not written yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.layout = RunLayout(self.folder)
        if not self.folder.is_dir():
            raise InputError(
                "opening a run", file=self.folder, expected="a run folder", found="no such folder"
            )
        if not self.layout.started:
            held = sorted(path.name for path in self.folder.iterdir())[:5]
            raise InputError(
                "opening a run",
                file=self.folder,
                expected=f"a folder with {RECIPE}, as training writes it",
                found=", ".join(held) or "an empty folder",
            )

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the training."""
        return load_recipe(self.layout.recipe)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device, seed, code revision and data checksum."""
        return self._json(self.layout.environment)

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        if not self.finished:
            raise self._not_finished(self.layout.card)
        return self.layout.model

    @property
    def model_card(self) -> dict[str, Any]:
        """The model card; it is written last, so its presence means that the training ended."""
        return self._json(self.layout.card)

    @property
    def finished(self) -> bool:
        """Whether the training ended and the model was written."""
        return self.layout.finished

    @property
    def report(self) -> Path | None:
        """The HTML report, where one was written."""
        return self.layout.report if self.layout.report.is_file() else None

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Checkpoints by name: last, best, best-on-test."""
        return {path.stem: path for path in sorted(self.layout.checkpoints.glob("[!.]*.ckpt"))}

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one per step; empty fields are left out."""
        return read_rows(self.layout.metrics)

    def weights(self, checkpoint: str | None = None) -> dict[str, Tensor]:
        """The network's tensors: of the finished model, or of a checkpoint by name (the average
        where the recipe asks for one).
        """
        if checkpoint is None:
            from segweave.weights import read_weights

            return read_weights(self.model / WEIGHTS)
        from segweave.runs.checkpoints import read_checkpoint

        known = self.checkpoints
        if checkpoint not in known:
            raise UsageError(
                f"reading a checkpoint of {self.folder}",
                found=repr(checkpoint),
                remedy=nearest(checkpoint, known) if known else "there is none yet; train first",
            )
        return read_checkpoint(known[checkpoint]).weights

    def _json(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise self._not_finished(path)
        return read_json(path, "reading a run")

    def _not_finished(self, path: Path) -> InputError:
        rows = self.metrics
        return InputError(
            "reading a run",
            file=path,
            expected="a training that has ended",
            found=f"no such file; the training reached step {int(rows[-1]['step']) if rows else 0}",
            remedy="train again with the same recipe and folder: it goes on where it stopped",
        )
