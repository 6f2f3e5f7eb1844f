"""Plans a training: reads a store, measures this machine, and makes a recipe with a reason for each
value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segweave.data.joined_store import open_stores
from segweave.data.store import CaseStore
from segweave.errors import InputError, UsageError
from segweave.networks import create_network
from segweave.recipes import Recipe
from segweave.runtime.progress import Progress
from segweave.storage import write_text
from segweave.weights import IMAGENET
from segweave.workflow.planner.candidates import PRETRAINED
from segweave.workflow.planner.choose import MOST_MEASURED, Choice, choose
from segweave.workflow.planner.decisions import MOST_EPOCHS, Decision, augmentation, to_recipe
from segweave.workflow.planner.facts import StoreFacts, read_facts
from segweave.workflow.planner.machine import Machine, describe_machine, has_bf16
from segweave.workflow.planner.speed import Speed, measure_speed
from segweave.workflow.planner.text import to_text
from segweave.workflow.planner.weights import weights_at_hand
from segweave.workflow.train import score_validation, time_limit

_DOING = "planning a training"


@dataclass(frozen=True)
class Plan:
    """A planned training.

    Attributes:
        recipe: what `segweave.train` takes.
        decisions: each value with its reason.
        facts: what was read of the store.
        machine: what was read of the machine.
        choice: what was chosen, with the measured speed and length.
        hours: the time that was planned for.
    """

    recipe: Recipe
    decisions: tuple[Decision, ...]
    facts: StoreFacts
    machine: Machine
    choice: Choice
    hours: float

    @property
    def text(self) -> str:
        """The recipe as YAML, with the reason beside each value."""
        facts, choice = self.facts, self.choice
        heading = [
            f"Planned for the store {facts.name} and {self.hours:g} h on {self.machine.device}.",
            f"Measured: {choice.speed.step:.3g} s per step, {choice.speed.validation:.3g} s for "
            "the validation cases.",
            "Every value may be changed; what is not given has its default.",
        ]
        return to_text(heading, self.decisions)

    def rows(self) -> dict[str, Any]:
        """The facts that the decisions rest on, for people to read."""
        measured = {
            title: f"{step:.3g} s per step, {epochs} epochs in {self.hours:g} h"
            for title, step, epochs in self.choice.measured
        }
        return {**self.facts.rows(), **self.machine.rows(), "measured": measured}

    def write(self, path: str | Path) -> Path:
        """Write `text`; an existing file is replaced."""
        write_text(path, self.text)
        return Path(path)


def plan(
    store: CaseStore | str | Path | Sequence[str | Path],
    *,
    hours: float = 1.0,
    device: str = "auto",
    split: str | None = None,
    weights: str | Path | None = None,
    progress: Progress | None = None,
    began: float | None = None,
) -> Plan:
    """Plan a training for a store and this machine. Reads some training cases and times a few real
    training steps of up to six candidates; writes nothing.

    The plan depends on the store, the machine and the measured speed alone.

    Args:
        store: what `prepare` wrote, or a list of stores that are trained on together.
        hours: for the whole training, > 0.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        split: the split to train on; None for the first with training and validation cases.
        weights: for colour pictures, a file of the ImageNet weights of EfficientNet-Lite0, or
            "imagenet", which timm downloads when the training starts. Without it they are taken
            where timm has them already.
        progress: called with (done, total, what is being done) around each measurement.
        began: a time of `time.monotonic` that the hours are counted from; None counts the planning
            itself as nothing.

    Raises UsageError for a time of 0 or too short for one epoch (the message says what fits), for a
    split that is not there, for a wrong device and for weights that grey images have no use for;
    InputError for a store or a file that is not there or does not fit, and for training cases
    without labels. Example:

        >>> from segweave import plan
        >>> planned = plan("stores/acdc", hours=1, device="cpu")
        >>> planned.recipe.network.name
        'unet'
    """
    time_limit(hours)  # refuses a time of 0
    chosen_weights = _checked(weights)
    if isinstance(store, str | Path | Sequence):
        paths = [store] if isinstance(store, str | Path) else list(store)
        stores = [str(Path(path).absolute()) for path in paths]
        source = open_stores(stores)
    else:
        source, stores = store, [str(getattr(store, "path", store.name))]
    machine = describe_machine(device)
    facts = read_facts(source, split)
    chosen_weights = _weights_for(facts, chosen_weights)

    measured = 0

    def measure(decisions: Sequence[Decision]) -> Speed:
        nonlocal measured
        if progress is not None:
            progress(measured, MOST_MEASURED + 1, "measuring")
        measured += 1
        augmented = augmentation(facts, epochs=MOST_EPOCHS)
        drafted = to_recipe(
            [
                *decisions,
                Decision("training.epochs", 1, "its length is not known yet"),
                Decision("training.augmentation", *augmented),
            ]
        )
        return measure_speed(
            drafted, source, score_validation, machine.device, training_slices=facts.slices
        )

    choice = choose(
        facts,
        machine,
        hours,
        classes=source.target.classes,
        stores=stores,
        weights=chosen_weights,
        measure=measure,
        may_use_bf16=not machine.gpu and has_bf16(),
        spent=lambda: 0.0 if began is None else time.monotonic() - began,
    )
    recipe = to_recipe(choice.decisions)
    return Plan(recipe, tuple(choice.decisions), facts, machine, choice, hours)


def _weights_for(facts: StoreFacts, given: str | None) -> str | None:
    """What `network.pretrained` will be for these images; raises UsageError for weights that they
    have no use for, and what reading a file raises where it does not fit.
    """
    if not facts.colour:
        if given is None:
            return None
        raise UsageError(
            _DOING,
            expected="colour pictures, for which there are ImageNet weights",
            found=f"--weights, but {facts.channels} channel(s) without colours",
            remedy="plan without --weights",
        )
    if given is None:
        return weights_at_hand()
    if given != IMAGENET:
        create_network(PRETRAINED, in_channels=3, classes=1, pretrained=given)
    return given


def _checked(weights: str | Path | None) -> str | None:
    """`weights` as a recipe has it; raises InputError where there is no such file."""
    if weights is None:
        return None
    given = str(weights)
    if given == IMAGENET:
        return given
    file = Path(given.removeprefix(f"{IMAGENET}:"))
    if not file.is_file():
        raise InputError(
            _DOING,
            file=file,
            expected="a file of ImageNet weights, or the word imagenet",
            found="no such file",
            remedy="check --weights",
        )
    return f"{IMAGENET}:{file.absolute()}"
