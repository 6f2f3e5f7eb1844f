"""The folder that one training leaves, and a reader for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segweave.errors import InputError, UsageError, nearest
from segweave.recipes import Recipe, load_recipe
from segweave.storage import read_json
from segweave.weights import MODEL as MODEL
from segweave.weights import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
CARD = "card.json"
REPORT = "report.html"


class Run:
    """Reads a run folder. Raises InputError where `folder` is none, and where something is asked
    for that the training has not written yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(
                "opening a run", file=self.folder, expected="a run folder", found="no such folder"
            )
        if not (self.folder / RECIPE).is_file():
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
        return load_recipe(self.folder / RECIPE)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device, seed, code revision and data checksum."""
        return self._json(self.folder / ENVIRONMENT)

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        self.card  # noqa: B018  says what is missing
        return self.folder / MODEL

    @property
    def card(self) -> dict[str, Any]:
        """The model card; it is written last, so its presence means that the training ended."""
        return self._json(self.folder / MODEL / CARD)

    @property
    def finished(self) -> bool:
        """Whether the training ended and the model was written."""
        return (self.folder / MODEL / CARD).is_file()

    @property
    def report(self) -> Path | None:
        """The HTML report, where one was written."""
        path = self.folder / REPORT
        return path if path.is_file() else None

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Checkpoints by name: last, best, best-on-test."""
        return {path.stem: path for path in sorted((self.folder / CHECKPOINTS).glob("[!.]*.ckpt"))}

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one a step; empty fields are left out."""
        from segweave.runs.metrics_file import read_rows

        return read_rows(self.folder / METRICS)

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
            reached = self.metrics[-1]["step"] if (self.folder / METRICS).is_file() else 0
            raise InputError(
                "reading a run",
                file=path,
                expected="a training that has ended",
                found=f"no such file; the training reached step {int(reached)}",
                remedy="train again with the same recipe and folder: it goes on where it stopped",
            )
        return read_json(path, "reading a run")
