"""One training in progress: what happens before, in and after an optimiser step, whoever runs the
loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segweave.data.batches import Batches
from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import SegweaveError, UsageError
from segweave.recipes import Recipe
from segweave.runs.checkpoints import Checkpoint, write_checkpoint
from segweave.runs.layout import CHECKPOINTS, METRICS, TENSORBOARD
from segweave.runs.metrics_file import MetricsFile
from segweave.runtime.randomness import derive_seed
from segweave.training.objective import WeightedLoss
from segweave.training.progress import TrainingBar
from segweave.training.schedule import rate_at
from segweave.weights import load_weights

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Score = Callable[[nn.Module, InputSpec, TargetSpec, Iterable[Case]], Mapping[str, float]]
"""(network, input, target, cases) → scores by name; "dice" is the mean Dice of all classes."""
Validation = Callable[[nn.Module], Mapping[str, float]]


class TrainingStoppedError(SegweaveError):
    """The user stopped the training (Ctrl-C); it can be resumed."""

    exit_code = 130


class TrainingSession:
    """The state of a training and its files.

    A loop takes `batches_left()`, and for each batch calls `before_step`, `compute`, its own
    backward and optimiser step, and `after_step`. After an epoch's last step the validation cases
    are scored and checkpoints are written. `validate_on_test` is given only where the published
    protocol asks for a checkpoint chosen on the test set.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        target: TargetSpec,
        batches: Batches,
        folder: Path,
        *,
        checkpoint: Checkpoint | None,
        validate: Validation | None,
        validate_on_test: Validation | None,
        bar: TrainingBar,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.loss = WeightedLoss(recipe.training.loss, target)
        self.batches = batches
        self.folder = folder
        self.bar = bar
        self.steps_per_epoch = len(batches)
        self.steps = total_steps(recipe, self.steps_per_epoch)
        self.stop_asked = False
        self._validate = validate
        self._validate_on_test = validate_on_test
        self._restored = checkpoint
        self.step = self.saved_step = checkpoint.step if checkpoint else 0
        self.seconds = checkpoint.seconds if checkpoint else 0.0
        self.scores = dict(checkpoint.scores) if checkpoint else {}
        self.best = checkpoint.best if checkpoint else None
        self.best_on_test = checkpoint.best_on_test if checkpoint else None
        if recipe.training.channels_last:
            network.to(memory_format=torch.channels_last)
        if checkpoint is not None:
            last = folder / CHECKPOINTS / "last.ckpt"
            load_weights(network, checkpoint.network, "reading a checkpoint", file=last)
        self._loss = math.nan
        self._rate = 0.0
        self._load_seconds = 0.0
        self._samples = 0
        self._clock = 0.0
        self._optimiser: torch.optim.Optimizer | None = None
        self._metrics: MetricsFile | None = None
        self._writer: SummaryWriter | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 0."""
        return self.step // self.steps_per_epoch

    def open(self) -> None:
        """Open metrics.csv and the TensorBoard events, cut back to the step that is resumed."""
        from torch.utils.tensorboard import SummaryWriter

        self._metrics = MetricsFile(self.folder / METRICS, self.step)
        self._writer = SummaryWriter(
            log_dir=str(self.folder / TENSORBOARD), purge_step=self.step + 1 if self.step else None
        )
        if self._restored is not None:
            torch.set_rng_state(self._restored.random)
        self.network.train()

    def close(self) -> None:
        """Close the TensorBoard events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def make_optimiser(self) -> torch.optim.Optimizer:
        """The recipe's optimiser over the network's parameters, with its state where resumed."""
        chosen = self.recipe.training.optimiser
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        optimiser: torch.optim.Optimizer
        if chosen.name == "sgd":
            optimiser = torch.optim.SGD(
                parameters,
                lr=chosen.rate,
                momentum=chosen.momentum,
                weight_decay=chosen.weight_decay,
            )
        else:
            kind = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
            optimiser = kind(
                parameters, lr=chosen.rate, betas=chosen.betas, weight_decay=chosen.weight_decay
            )
        if self._restored is not None:
            optimiser.load_state_dict(self._restored.optimiser)
        self._optimiser = optimiser
        return optimiser

    def batches_left(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(image, label) of every step that is left, epoch after epoch."""
        self._clock = time.perf_counter()
        for step in range(self.step, self.steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if step == self.step or within == 0:
                epoch_batches = self.batches.epoch(epoch, start_step=within)
            started = time.perf_counter()
            batch = next(epoch_batches)
            self._load_seconds = time.perf_counter() - started
            self._samples = int(batch.image.shape[0])
            yield batch.image, batch.label

    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Set this step's learning rate, and the generator that dropout takes."""
        training = self.recipe.training
        self._rate = rate_at(training.schedule, training.optimiser.rate, self.step, self.steps)
        for group in optimiser.param_groups:
            group["lr"] = self._rate
        torch.manual_seed(derive_seed(self.recipe.seed, "dropout", slice_index=self.step))

    def compute(self, image: Tensor, label: Tensor) -> Tensor:
        """The loss of a batch; raises SegweaveError, before the weights change, where it is NaN or
        infinite.
        """
        loss: Tensor = self.loss(self.network(image), label)
        self._loss = float(loss.detach())
        if not math.isfinite(self._loss):
            raise SegweaveError(
                f"training {self.folder}",
                expected="a finite loss",
                found=f"{self._loss} at optimiser step {self.step + 1} (epoch {self.epoch + 1})",
                remedy="lower training.optimiser.rate or set training.gradient_clip, in a new "
                "folder; the last checkpoint is kept",
            )
        return loss

    def after_step(self) -> None:
        """Count the step; at the end of an epoch score and save. Raises TrainingStoppedError,
        after saving, where the user asked for it.
        """
        self.step += 1
        now = time.perf_counter()
        step_seconds = max(now - self._clock, 1e-9)
        self.seconds += step_seconds
        within = self.step % self.steps_per_epoch
        ended = within == 0 or self.step == self.steps
        row = {
            "step": float(self.step),
            "epoch": float((self.step - 1) // self.steps_per_epoch + 1),
            "loss": self._loss,
            "rate": self._rate,
            "seconds": round(self.seconds, 4),
            "samples_per_second": round(self._samples / step_seconds, 3),
            "loader_share": round(min(self._load_seconds / step_seconds, 1.0), 4),
        }
        if ended:
            row |= self._score()
        self._write(row)
        self.bar.step(self.step, self._loss)
        every = self.recipe.training.checkpoint_every
        if ended or self.stop_asked or (every is not None and self.step % every == 0):
            self.save("last")
        if self.stop_asked and self.step < self.steps:
            raise stopped(self.folder, self.saved_step)
        self._clock = time.perf_counter()

    def save(self, name: str) -> None:
        """Write the checkpoint `name` as things stand."""
        assert self._optimiser is not None
        checkpoint = Checkpoint(
            step=self.step,
            epoch=self.step // self.steps_per_epoch,
            seconds=self.seconds,
            network=self.network.state_dict(),
            optimiser=self._optimiser.state_dict(),
            random=torch.get_rng_state(),
            scores=self.scores,
            best=self.best,
            best_on_test=self.best_on_test,
        )
        write_checkpoint(checkpoint, self.folder / CHECKPOINTS / f"{name}.ckpt")
        if name == "last":
            self.saved_step = self.step

    def _score(self) -> dict[str, float]:
        """Score where it is due, write the best checkpoints; what the row gains."""
        epoch = math.ceil(self.step / self.steps_per_epoch)
        if epoch % self.recipe.training.validate_every and self.step != self.steps:
            return {}
        gained: dict[str, float] = {}
        if self._validate is not None:
            self.scores = self._run(self._validate)
            self.bar.scores(self.scores)
            gained |= {f"validation_{name}": value for name, value in self.scores.items()}
            self.best, better = self._better(self.scores, self.best)
            if better:
                self.save("best")
        if self._validate_on_test is not None:
            scores = self._run(self._validate_on_test)
            gained |= {f"test_{name}": value for name, value in scores.items()}
            self.best_on_test, better = self._better(scores, self.best_on_test)
            if better:
                self.save("best-on-test")
        return gained

    def _run(self, validation: Validation) -> dict[str, float]:
        self.network.eval()
        try:
            with torch.no_grad():
                scores = {name: float(value) for name, value in validation(self.network).items()}
        finally:
            self.network.train()
        if "dice" not in scores:
            raise UsageError(
                "scoring the validation cases",
                expected='a score named "dice"',
                found=", ".join(scores) or "no scores",
            )
        return scores

    def _better(
        self, scores: Mapping[str, float], best: tuple[float, int] | None
    ) -> tuple[tuple[float, int], bool]:
        dice = scores["dice"] if math.isfinite(scores["dice"]) else -1.0
        if best is None or dice > best[0]:
            return (dice, self.step), True
        return best, False

    def _write(self, row: dict[str, float]) -> None:
        assert self._metrics is not None
        assert self._writer is not None
        self._metrics.append(row)
        for name, value in row.items():
            if name not in ("step", "epoch", "seconds"):
                part, _, rest = name.partition("_")
                scored = part in ("validation", "test")
                tag = f"{part}/{rest}" if scored else f"training/{name}"
                self._writer.add_scalar(tag, value, self.step)


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole training."""
    training = recipe.training
    if training.steps is not None:
        return training.steps
    assert training.epochs is not None
    return training.epochs * steps_per_epoch


def stopped(folder: Path, step: int) -> TrainingStoppedError:
    """What a user who stopped a training is told; `step` is the last one that was saved."""
    return TrainingStoppedError(
        "training was stopped",
        file=folder,
        found=f"{step} optimiser steps are done and saved" if step else "nothing was saved yet",
        remedy="start the same training with the same folder again: it goes on from there",
    )
