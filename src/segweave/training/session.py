"""One training in progress: what happens before, in and after an optimiser step, whoever runs the
loop.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segweave.data.batches import Batch
from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import SegweaveError, UsageError
from segweave.evaluation.protocols import CLEAN, get_protocol
from segweave.networks.base import Output
from segweave.recipes import Recipe
from segweave.registry import metrics
from segweave.runs.checkpoints import Checkpoint, write_checkpoint
from segweave.runs.metrics_file import MetricsFile
from segweave.runs.run_folder import CHECKPOINTS, METRICS, TENSORBOARD
from segweave.runtime.progress import Progress
from segweave.runtime.randomness import derive_seed
from segweave.training.averaging import WeightAverage
from segweave.training.boxes import ReferenceBoxes
from segweave.training.feedback import MaskMemory
from segweave.training.objective import WeightedLoss
from segweave.training.optimisers import make_optimiser
from segweave.training.passes import Pass, Passes
from segweave.training.schedule import falls_now, rate_at, total_steps
from segweave.training.time_limit import TimeLimit
from segweave.weights import load_weights

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Score = Callable[[nn.Module, InputSpec, TargetSpec, Iterable[Case]], Mapping[str, float]]
"""(network, input, target, cases) → scores by name, among them that by which arms are compared
(`Protocol.primary`): "dice", the mean Dice of all classes, or "psnr" of a predicted image."""
Validation = Callable[[nn.Module], Mapping[str, float]]


class TrainingStoppedError(SegweaveError):
    """The user stopped the training (Ctrl-C); it can be resumed."""

    exit_code = 130


class TrainingSession:
    """The state of a training and its files.

    For each optimiser step a loop calls `before_step`, then `read`, `compute` and the
    backward pass for each of `passes()`, takes the optimiser step, and calls `after_step`, until
    `finished`. After an epoch's last step the validation cases are scored and checkpoints are
    written.

    Args:
        recipe: the resolved recipe.
        network: the woven network, on the device.
        target: what the classes are.
        passes: the batches of each step.
        folder: the run folder.
        checkpoint: where the training goes on; None for the start.
        memory: the masks of a network with feedback; None for all others.
        shown: the boxes of a network that is shown what to segment; None for all others.
        validate: scores the validation cases; None where there are none.
        validate_on_test: only where the published protocol asks for a checkpoint that is chosen on
            the test set.
        progress: called after each step.
        limit: ends the training in time; None for no limit.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        target: TargetSpec,
        passes: Passes,
        folder: Path,
        *,
        checkpoint: Checkpoint | None = None,
        memory: MaskMemory | None = None,
        shown: ReferenceBoxes | None = None,
        validate: Validation | None = None,
        validate_on_test: Validation | None = None,
        progress: Progress | None = None,
        limit: TimeLimit | None = None,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.loss = WeightedLoss(recipe.training.loss, target)
        self.primary = get_protocol(CLEAN, target=target).primary
        self.folder = folder
        self.steps_per_epoch = passes.steps_per_epoch
        self.steps = total_steps(recipe, self.steps_per_epoch)
        self.stop_asked = False
        self._passes = passes
        self._memory = memory
        self._shown = shown
        self._validate = validate
        self._validate_on_test = validate_on_test
        self._progress = progress
        self._restored = checkpoint
        self._limit = limit
        average = recipe.training.average
        self._average = WeightAverage(average.decay) if average is not None else None
        self.step = self.saved_step = 0
        self.seconds = 0.0
        self.scores: dict[str, float] = {}
        self.best: tuple[float, int] | None = None
        self.best_on_test: tuple[float, int] | None = None
        self.stale = self.falls = 0
        self.ended = ""
        if recipe.training.channels_last:
            network.to(memory_format=torch.channels_last)
        if checkpoint is not None:
            self._restore(checkpoint)
        self._losses: list[float] = []
        self._rate = 0.0
        self._load_seconds = 0.0
        self._samples = 0
        self._clock = 0.0
        self._optimiser: torch.optim.Optimizer | None = None
        self._full_rates: list[float] = []
        self._metrics: MetricsFile | None = None
        self._writer: SummaryWriter | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.step >= self.steps or bool(self.ended)

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
        if self._limit is not None:
            self._limit.begin(self.seconds)
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Close the TensorBoard events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def make_optimiser(self) -> torch.optim.Optimizer:
        """The recipe's optimiser over the network's parameters, with its state where resumed."""
        optimiser, self._full_rates = make_optimiser(self.recipe.training.optimiser, self.network)
        if self._restored is not None:
            optimiser.load_state_dict(self._restored.optimiser)
        self._optimiser = optimiser
        return optimiser

    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Set this step's learning rates, and the generator that dropout takes."""
        training = self.recipe.training
        for group, full in zip(optimiser.param_groups, self._full_rates, strict=True):
            group["lr"] = self._rate_now(full)
        self._rate = self._rate_now(training.optimiser.rate)
        torch.manual_seed(derive_seed(self.recipe.seed, "dropout", slice_index=self.step))
        self._losses, self._load_seconds, self._samples = [], 0.0, 0

    def _rate_now(self, full: float) -> float:
        return rate_at(
            self.recipe.training.schedule,
            full,
            self.step,
            self.steps,
            steps_per_epoch=self.steps_per_epoch,
            falls=self.falls,
        )

    def passes(self) -> list[Pass]:
        """The passes of this step."""
        return self._passes.of_step(self.step)

    def read(self, one: Pass) -> Batch:
        """The batch of a pass."""
        started = time.perf_counter()
        source = self._memory or self._shown
        batch = self._passes.read(one, None if source is None else source.read)
        self._load_seconds += time.perf_counter() - started
        self._samples += len(batch.keys)
        return batch

    def compute(self, one: Pass, batch: Batch) -> Tensor:
        """The loss of a pass, divided by the number of passes of this step.

        Raises SegweaveError, before the weights change, where it is NaN or infinite.
        """
        inputs = {} if self._memory is None else self._memory.inputs(batch)
        if self._shown is not None:
            inputs |= self._shown.inputs(batch, one.epoch)
        mixed = self.recipe.training.precision == "bf16"
        # Without the cache, gradients of a weight that is used several times add up in float32.
        with torch.autocast(
            batch.image.device.type, torch.bfloat16, enabled=mixed, cache_enabled=False
        ):
            output: Output = self.network(batch.image, **inputs)
            loss: Tensor = self.loss(output, batch.label)
        value = float(loss.detach())
        self._losses.append(value)
        if not math.isfinite(value):
            raise SegweaveError(
                f"training {self.folder}",
                expected="a finite loss",
                found=f"{value} at optimiser step {self.step + 1} (epoch {self.epoch + 1})",
                remedy="lower training.optimiser.rate or set training.gradient_clip, in a new "
                "folder; the last checkpoint is kept",
            )
        if self._memory is not None and one.last:
            self._memory.write(batch, output)
        count = len(self.passes())
        return loss / count if count > 1 else loss

    def after_step(self) -> None:
        """Count the step; at the end of an epoch score and save. Raises TrainingStoppedError,
        after saving, where the user asked for it.
        """
        self.step += 1
        if self._average is not None:
            self._average.update(self.network)
        now = time.perf_counter()
        step_seconds = max(now - self._clock, 1e-9)
        self.seconds += step_seconds
        epoch_ended = self.step % self.steps_per_epoch == 0 or self.step == self.steps
        loss = sum(self._losses) / len(self._losses)
        row = {
            "step": float(self.step),
            "epoch": float((self.step - 1) // self.steps_per_epoch + 1),
            "loss": loss,
            "rate": self._rate,
            "seconds": round(self.seconds, 4),
            "samples_per_second": round(self._samples / step_seconds, 3),
            "loader_share": round(min(self._load_seconds / step_seconds, 1.0), 4),
        }
        if epoch_ended:
            if self._limit is not None and not self.finished:
                self.ended = self._limit.epoch_ended()
            row |= self._score()
        self._write(row)
        if self._progress is not None:
            self._progress(self.step, self.steps, self._describe(loss))
        every = self.recipe.training.checkpoint_every
        if epoch_ended or self.stop_asked or (every is not None and self.step % every == 0):
            self.save("last")
        if self.stop_asked and not self.finished:
            raise stopped(self.folder, self.saved_step)
        self._clock = time.perf_counter()

    def save(self, name: str) -> None:
        """Write the checkpoint `name` of the present state."""
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
            average=None if self._average is None else self._average.tensors,
            masks=None if self._memory is None else self._memory.state(),
            stale=self.stale,
            falls=self.falls,
            ended=self.ended,
        )
        write_checkpoint(checkpoint, self.folder / CHECKPOINTS / f"{name}.ckpt")
        if name == "last":
            self.saved_step = self.step

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.step = self.saved_step = checkpoint.step
        self.seconds = checkpoint.seconds
        self.scores = dict(checkpoint.scores)
        self.best = checkpoint.best
        self.best_on_test = checkpoint.best_on_test
        self.stale, self.falls = checkpoint.stale, checkpoint.falls
        self.ended = checkpoint.ended
        last = self.folder / CHECKPOINTS / "last.ckpt"
        load_weights(self.network, checkpoint.network, "reading a checkpoint", file=last)
        if self._average is not None:
            self._average.tensors = checkpoint.average
        if self._memory is not None and checkpoint.masks is not None:
            self._memory.restore(checkpoint.masks)

    def _score(self) -> dict[str, float]:
        """Score where it is due, write the best checkpoints; returns what the row gains."""
        epoch = math.ceil(self.step / self.steps_per_epoch)
        if epoch % self.recipe.training.validate_every and not self.finished:
            return {}
        gained: dict[str, float] = {}
        if self._validate is not None:
            self.scores = self._run(self._validate)
            gained |= {f"validation_{name}": value for name, value in self.scores.items()}
            self.best, better = self._better(self.scores, self.best)
            self.stale = 0 if better else self.stale + 1
            self.falls += falls_now(self.recipe.training.schedule, self.stale)
            if better:
                self.save("best")
        if self._validate_on_test is not None:
            scores = self._run(self._validate_on_test)
            gained |= {f"test_{name}": value for name, value in scores.items()}
            self.best_on_test, better = self._better(scores, self.best_on_test)
            if better:
                self.save("best-on-test")
        patience = self.recipe.training.patience
        if patience is not None and self.stale >= patience and self.best is not None:
            self.ended = (
                f"no higher validation {self._quantity} in {self.stale} validations "
                f"({self.best[0]:.4f} at step {self.best[1]})"
            )
        return gained

    def _run(self, validation: Validation) -> dict[str, float]:
        self.network.eval()
        started = time.perf_counter()
        try:
            with torch.no_grad(), self._averaged():
                scores = {name: float(value) for name, value in validation(self.network).items()}
        finally:
            self.network.train()
        if self._limit is not None:
            self._limit.scored(time.perf_counter() - started)
        if self.primary not in scores:
            raise UsageError(
                "scoring the validation cases",
                expected=f'a score named "{self.primary}"',
                found=", ".join(scores) or "no scores",
            )
        return scores

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        if self._average is None:
            yield
            return
        with self._average.applied(self.network):
            yield

    def _better(
        self, scores: Mapping[str, float], best: tuple[float, int] | None
    ) -> tuple[tuple[float, int], bool]:
        value = scores[self.primary] if math.isfinite(scores[self.primary]) else -1.0
        if best is None or value > best[0]:
            return (value, self.step), True
        return best, False

    @property
    def _quantity(self) -> str:
        """The short name of the validation score."""
        return metrics.card(self.primary).heading

    def _describe(self, loss: float) -> str:
        value = self.scores.get(self.primary)
        scored = "" if value is None else f", validation {self._quantity} {value:.4f}"
        return f"loss {loss:.4f}{scored}"

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


def stopped(folder: Path, step: int) -> TrainingStoppedError:
    """The error for a training that the user stopped; `step` is the last one that was saved."""
    return TrainingStoppedError(
        "training was stopped",
        file=folder,
        found=f"{step} optimiser steps are done and saved" if step else "nothing was saved yet",
        remedy="start the same training with the same folder again: it goes on from there",
    )
