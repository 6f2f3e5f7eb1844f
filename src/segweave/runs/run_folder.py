"""The folder that one training leaves: where its files are, and how they are read. Their names are
spelled here and nowhere else.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segweave.data.joined_store import open_stores
from segweave.data.store import CaseStore, Store
from segweave.errors import InputError, UsageError, nearest
from segweave.recipes import ArmIdentity, Recipe, arm_identity
from segweave.storage import read_json
from segweave.weights import MODEL as MODEL
from segweave.weights import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor


RECIPE = "recipe.yaml"
PLAN = "plan.yaml"
"""The recipe as it was planned, with reasons, where `train auto` planned it."""
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
CARD = "card.json"
REPORT = "report.html"
PREDICTIONS = "predictions"
EVALUATION = "evaluation"
LEDGER = "tested.json"
LOADING = "loading a model"
RESIZED = ".resized"
"""Disposable copies of the training images, where they can't be written beside the store."""


@dataclass(frozen=True)
class RunLayout:
    """The paths of a run in `folder`, whether they exist or not.

    Example:
        >>> from segweave.runs.run_folder import RunLayout
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
    def plan(self) -> Path:
        """The planned recipe with its reasons, where the training was planned."""
        return self.folder / PLAN

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
        """The folder of the finished model: the folder itself where that is a model folder, from
        weights that were trained elsewhere.
        """
        return self.folder if (self.folder / CARD).is_file() else self.folder / MODEL

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
        """Whether a training began in this folder, or it is a model folder."""
        return self.recipe.is_file() or (self.folder / CARD).is_file()

    @property
    def finished(self) -> bool:
        """Whether a training ended in this folder."""
        return self.card.is_file()


class Run:
    """Reads a run folder, or a model folder (`save_model`, `convert_weights`) as a run whose
    training nothing is known of.

    Attributes:
        folder: the folder.
        layout: the paths of its files.

    Raises InputError where `folder` is neither, and where something is read that the training has
    not written yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.layout = RunLayout(self.folder)
        if not self.folder.is_dir():
            raise InputError(
                "opening a run",
                file=self.folder,
                expected="a run folder",
                found="no such folder",
                remedy="give the folder that segweave train --out wrote",
            )
        if not self.layout.started:
            held = sorted(path.name for path in self.folder.iterdir())[:5]
            raise InputError(
                "opening a run",
                file=self.folder,
                expected=f"a folder with {RECIPE}, as training writes it, or with {CARD}",
                found=", ".join(held) or "an empty folder",
            )

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the training."""
        if self._is_model:
            return Recipe.from_dict(self.model_card["recipe"], file=self.layout.card)
        return Recipe.from_file(self.layout.recipe)

    def open_store(self) -> CaseStore | None:
        """The store that the recipe names, or its stores as one; None where it names none."""
        paths = self.recipe.data.store
        if paths is None:
            return None
        return Store(paths) if isinstance(paths, str) else open_stores(paths)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device, seed, code revision and data checksum."""
        if self._is_model:
            checksum = self.model_card.get("training_data", {}).get("checksum", "")
            data = {"name": self.training_data["name"], "checksum": checksum, "cases": {}}
            return {"segweave": self.model_card["segweave"], "data": data}
        return self._json(self.layout.environment)

    @property
    def training_data(self) -> dict[str, Any]:
        """What the model card states of the data that was trained on: `name`, `groups` and
        `validation_groups`, empty where nothing is known.
        """
        unknown = {"name": "not known", "groups": [], "validation_groups": []}
        return {**unknown, **self.model_card.get("training_data", {})}

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

    @property
    def identity(self) -> ArmIdentity:
        """The arm that the run belongs to: the identity that was recorded when it started; runs of
        earlier versions recorded none, it is then computed from their recipe.
        """
        recorded = self.environment.get("arm")
        if recorded is not None:
            return ArmIdentity(recorded["digest"], recorded["recipe"])
        return identity_of(self.recipe, self.environment["data"]["checksum"])

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

    @property
    def _is_model(self) -> bool:
        return self.layout.model == self.folder

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


def model_folder(path: Path, checkpoint: str | None = None) -> Path:
    """The folder with the model card: `path` itself, or `path`/model. For a checkpoint of a run
    that has not ended it is the run's folder, which has no card yet.

    Raises InputError where there is neither, UsageError for a checkpoint that is not there.
    """
    if not path.is_dir():
        raise InputError(
            LOADING,
            file=path,
            expected="a run folder or a model folder",
            found="a file" if path.exists() else "nothing there",
            remedy=f"give the folder that holds {MODEL}/{CARD}; weights that others released "
            "become one by segweave convert-weights"
            if path.exists()
            else "give the folder that segweave train --out wrote",
        )
    if checkpoint is not None:
        _check_checkpoint(path, checkpoint)
    for folder in (path / MODEL, path):
        if (folder / CARD).is_file():
            return folder
    if not (path / RECIPE).is_file():
        entries = sorted(entry.name for entry in path.iterdir())[:6]
        raise InputError(
            LOADING,
            file=path,
            expected=f"a folder with {MODEL}/{CARD} or {CARD}",
            found=", ".join(entries) or "an empty folder",
            remedy="give the folder that segweave train --out wrote",
        )
    if checkpoint is not None:
        return path
    held = " and ".join(Run(path).checkpoints)
    raise InputError(
        LOADING,
        file=path,
        expected=f"a folder with {MODEL}/{CARD} or {CARD}",
        found="a run that has not ended" + (f", with the checkpoint {held}" if held else ""),
        remedy="train again with the same recipe and folder: the training continues"
        + ("; or take a checkpoint as it is now (--checkpoint last)" if held else ""),
    )


def _check_checkpoint(path: Path, checkpoint: str) -> None:
    inside = path.name == MODEL and (path.parent / RECIPE).is_file()
    folder = path.parent if inside else path
    remedy = "leave the checkpoint out: a model folder has one set of weights"
    if (folder / RECIPE).is_file():
        known = Run(folder).checkpoints
        if checkpoint in known:
            return
        remedy = nearest(checkpoint, known) if known else "there is none yet; train first"
    elif not (folder / CARD).is_file():
        return  # not a model
    raise UsageError(f"reading a checkpoint of {path}", found=repr(checkpoint), remedy=remedy)


def read_rows(path: str | Path) -> list[dict[str, float]]:
    """The whole rows of a metrics file, empty fields left out; [] where there is no file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "reading the training's numbers", file=path, expected="a CSV file", found=str(error)
        ) from error
    whole = text[: text.rfind("\n") + 1]  # a killed process may have written half a line
    rows: list[dict[str, float]] = []
    try:
        for row in csv.DictReader(io.StringIO(whole)):
            rows.append({name: float(value) for name, value in row.items() if value})
    except (TypeError, ValueError, csv.Error) as error:
        raise InputError(
            "reading the training's numbers", file=path, expected="numbers", found=str(error)
        ) from None
    return rows


def identity_of(recipe: Recipe, data: str) -> ArmIdentity:
    """The identity of a training that starts now on data with the checksum `data`.

    A network that starts from a run is identified by the arm of that run, so that seeds which
    start from the same seeds of another arm are one arm.
    """
    return arm_identity(recipe, data, _start(recipe.network.pretrained))


def _start(pretrained: str | None) -> str | None:
    """What stands for a run that the network starts from; None where it starts from no run."""
    if pretrained is None or not (Path(pretrained) / RECIPE).is_file():
        return None
    return f"run:{Run(pretrained).identity.digest}"
