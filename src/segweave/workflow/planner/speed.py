"""How fast this machine trains a candidate: a few real steps, one validation, one checkpoint."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import nn

from segweave.data.batches import Batches
from segweave.data.cache import Resized
from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import CaseStore
from segweave.recipes import Recipe
from segweave.recipes.build import build_network
from segweave.runtime.devices import choose_device, flushed_denormals
from segweave.training.objective import WeightedLoss
from segweave.training.optimisers import make_optimiser

Score = Callable[[nn.Module, InputSpec, TargetSpec, Sequence[Case]], Mapping[str, float]]

_STEPS = 6
_LONG_ENOUGH = 4.0
"""Seconds after which no further step is timed, once two were."""


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        step: seconds per optimiser step.
        validation: seconds for scoring all validation cases; 0 where there are none.
        checkpoint: seconds for one checkpoint.
        reading: seconds for bringing all training images to the network's size, once.
        peak: bytes that the GPU held at most; 0 on a CPU.
    """

    step: float
    validation: float = 0.0
    checkpoint: float = 0.0
    reading: float = 0.0
    peak: int = 0

    def scaled(self, factor: float) -> Speed:
        """The guess for a candidate of `factor` times the work."""
        return replace(self, step=self.step * factor, validation=self.validation * factor)


def measure_speed(
    recipe: Recipe, store: CaseStore, score: Score, device: str, *, training_slices: int
) -> Speed:
    """Train a few steps as `recipe` says, score one validation case and write one checkpoint.

    Nothing is written beside the store or left on the disk; torch's random numbers are left as
    they were.

    Args:
        recipe: the recipe of a candidate, without weights to start from.
        store: the store.
        score: scores validation cases.
        device: the name of a device.
        training_slices: slices of all training cases.
    """
    chosen = choose_device(device)
    parts = recipe.choose_parts(store)
    ids = _few(store, parts["training"], recipe.training.batch_size)
    devices = [chosen.index] if chosen.type == "cuda" else []
    with (
        TemporaryDirectory(prefix="segweave-plan-") as folder,
        torch.random.fork_rng(devices=devices),
        flushed_denormals(),
    ):
        started = time.perf_counter()
        resized = Resized(store, recipe.input, ids, folder=Path(folder))
        read = sum(store.entry(id).slices for id in ids)
        reading = (time.perf_counter() - started) * training_slices / read
        network = build_network(
            recipe, len(recipe.input.channels), store.target, pretrained=False
        ).to(chosen)
        if recipe.training.channels_last:
            network.to(memory_format=torch.channels_last)
        optimiser, _ = make_optimiser(recipe.training.optimiser, network)
        batches = Batches(
            resized,
            batch_size=recipe.training.batch_size,
            seed=recipe.seed,
            augmentation=recipe.training.augmentation,
            device=chosen,
        )
        if devices:
            torch.cuda.reset_peak_memory_stats(chosen)
        step = _seconds_per_step(recipe, network, optimiser, batches, store.target, chosen)
        peak = int(torch.cuda.max_memory_allocated(chosen)) if devices else 0
        validation = _validation(recipe, network, store, score, parts.get("validation", []))
        started = time.perf_counter()
        torch.save([network.state_dict(), optimiser.state_dict()], io.BytesIO())
        checkpoint = 2 * (time.perf_counter() - started)
    return Speed(step, validation, checkpoint, reading, peak)


def _few(store: CaseStore, ids: Sequence[str], batch: int) -> list[str]:
    """The first cases that hold two batches of slices together."""
    chosen: list[str] = []
    slices = 0
    for id in ids:
        chosen.append(id)
        slices += store.entry(id).slices
        if slices >= 2 * batch:
            break
    return chosen


def _seconds_per_step(
    recipe: Recipe,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    target: TargetSpec,
    device: torch.device,
) -> float:
    loss = WeightedLoss(recipe.training.loss, target)
    mixed = recipe.training.precision == "bf16"
    network.train()
    times: list[float] = []
    for number in range(1 + _STEPS):  # the first one warms up
        epoch, within = divmod(number, len(batches))
        started = time.perf_counter()
        batch = batches.batch(batches.keys(epoch)[within], epoch)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
            value = loss(network(batch.image), batch.label)
        value.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            times.append(time.perf_counter() - started)
        if len(times) >= 2 and sum(times) > _LONG_ENOUGH:
            break
    return median(times)


def _validation(
    recipe: Recipe, network: nn.Module, store: CaseStore, score: Score, ids: Sequence[str]
) -> float:
    """Seconds for all validation cases, from one whose number of slices is in the middle."""
    if not ids:
        return 0.0
    slices = {id: store.entry(id).slices for id in ids}
    middle = sorted(ids, key=lambda id: slices[id])[len(ids) // 2]
    network.eval()
    with torch.no_grad():
        started = time.perf_counter()
        score(network, recipe.input, store.target, [store.case(middle)])
        seconds = time.perf_counter() - started
    return seconds * sum(slices.values()) / slices[middle]
