"""Where the files of a run are: the only place that spells their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segweave.weights import MODEL as MODEL
from segweave.weights import WEIGHTS as WEIGHTS

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
CARD = "card.json"
REPORT = "report.html"
PREDICTIONS = "predictions"
EVALUATION = "evaluation"
LEDGER = "tested.json"


@dataclass(frozen=True)
class RunLayout:
    """The paths of a run in `folder`, whether they exist or not.

    Example:
        >>> from segweave.runs.layout import RunLayout
        >>> RunLayout("runs/unet").evaluation("clean").as_posix()
        'runs/unet/evaluation/clean'
    """

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        object.__setattr__(self, "folder", Path(folder))

    @property
    def recipe(self) -> Path:
        """The resolved recipe; it is written when the training starts."""
        return self.folder / RECIPE

    @property
    def environment(self) -> Path:
        """Versions, device, data."""
        return self.folder / ENVIRONMENT

    @property
    def metrics(self) -> Path:
        """The numbers of each optimiser step."""
        return self.folder / METRICS

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.folder / TENSORBOARD

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    def checkpoint(self, name: str) -> Path:
        """A checkpoint: last, best, best-on-test."""
        return self.checkpoints / f"{name}.ckpt"

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        return self.folder / MODEL

    @property
    def card(self) -> Path:
        """The model card; it is written last."""
        return self.model / CARD

    @property
    def weights(self) -> Path:
        """The weights of the finished model."""
        return self.model / WEIGHTS

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / REPORT

    @property
    def evaluations(self) -> Path:
        """The folder of the evaluations."""
        return self.folder / EVALUATION

    def evaluation(self, name: str) -> Path:
        """An evaluation folder, by protocol and variant."""
        return self.evaluations / name

    @property
    def ledger(self) -> Path:
        """What the test cases were scored with."""
        return self.evaluations / LEDGER

    def predictions(self, name: str) -> Path:
        """The folder of the label maps of an evaluation."""
        return self.folder / PREDICTIONS / name

    @property
    def started(self) -> bool:
        """Whether a training began in this folder."""
        return self.recipe.is_file()

    @property
    def finished(self) -> bool:
        """Whether a training ended in this folder."""
        return self.card.is_file()
