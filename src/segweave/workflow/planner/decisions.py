"""The values of a planned recipe, each with its reason: functions of facts alone, no clock and no
pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from segweave.recipes import Recipe, parse_recipe
from segweave.workflow.planner.anatomy import allowed_mirror, allowed_rotation
from segweave.workflow.planner.candidates import PRETRAINED, Candidate, reads_neighbours
from segweave.workflow.planner.facts import StoreFacts
from segweave.workflow.planner.machine import Machine
from segweave.workflow.planner.speed import Speed

MOST_EPOCHS = 500
SHARE_OF_TIME = 0.88
"""Share of the given time that is planned; the rest is for what differs from the measurement."""
SECONDS_AROUND = 10.0
"""For starting the training and writing its report."""
_ENOUGH = {True: 5_000, False: 20_000}
"""Samples to be seen at most, with and without pretrained weights, before larger images are worth
their time: about two thirds of what the shipped recipe for ACDC sees."""
_FEWEST = {True: 3_000, False: 8_000}
"""And at least, however few images there are."""
_ENOUGH_EPOCHS = {True: 12, False: 30}
"""Between the two, so many epochs: about three quarters of what the shipped recipes for ClinicDB
have."""
_PLENTY = 10
"""Times that number, after which further epochs bring little."""
_RARE = 0.2  # percent of the pixels
_VALIDATION_SHARE = 0.1
_MANY_VALUES = 30  # epochs


@dataclass(frozen=True)
class Decision:
    """One value of the recipe.

    Attributes:
        key: dotted, as in "training.epochs".
        value: what the recipe says.
        reason: why, in one line.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Length:
    """How long a training takes.

    Attributes:
        epochs: that fit into the time.
        validate_every: epochs between validations.
        steps: optimiser steps per epoch.
        seconds: of one epoch, validation included.
        limited: whether the time is what limits the epochs.
    """

    epochs: int
    validate_every: int
    steps: int
    seconds: float
    limited: bool

    @property
    def all_steps(self) -> int:
        """Optimiser steps of the training."""
        return self.epochs * self.steps


def enough(facts: StoreFacts, *, pretrained: bool) -> int:
    """Samples that a training has to see before a more ambitious candidate is worth its time."""
    wanted = max(_FEWEST[pretrained], facts.slices * _ENOUGH_EPOCHS[pretrained])
    return min(_ENOUGH[pretrained], wanted, facts.slices * MOST_EPOCHS // 2)


def planned_length(
    facts: StoreFacts, speed: Speed, hours: float, *, batch: int, pretrained: bool
) -> Length:
    """The epochs that fit into the time; 0 where not a single one does."""
    steps = math.ceil(facts.slices / batch)
    training = steps * speed.step + speed.checkpoint
    budget = SHARE_OF_TIME * hours * 3600 - speed.reading - 2 * speed.validation - SECONDS_AROUND
    every = max(1, math.ceil(speed.validation / (_VALIDATION_SHARE * training)))
    useful = math.ceil(_PLENTY * _ENOUGH[pretrained] / facts.slices)
    most = min(MOST_EPOCHS, max(useful, 1))
    fitting = math.floor(budget / (training + speed.validation / every))
    epochs = max(min(fitting, most), 0)
    # At least five validations where there is time for them, at most about fifty.
    every = max(min(every, max(epochs // 5, 1)), math.ceil(epochs / 50), 1)
    seconds = training + speed.validation / every
    if epochs > 0 and epochs < most:
        epochs = max(min(math.floor(budget / seconds), most), 0)
    return Length(epochs, every, steps, seconds, limited=fitting < most)


def batch_for(facts: StoreFacts, machine: Machine) -> tuple[int, str]:
    """The batch size before memory is asked, and why."""
    most = 16 if machine.gpu else 8
    batch = most
    while batch > 1 and facts.slices < 4 * batch:
        batch //= 2
    if batch < most:
        return batch, f"{facts.slices} slices: at least a few steps per epoch"
    if machine.gpu:
        return batch, "keeps a GPU busy"
    return batch, "a CPU gains nothing from larger ones"


def draft(
    facts: StoreFacts,
    machine: Machine,
    candidate: Candidate,
    *,
    stores: list[str],
    weights: str | None,
    batch_reason: str,
    size_reason: str,
) -> list[Decision]:
    """Every decision but those on the length."""
    pretrained = candidate.network == PRETRAINED
    return [
        *_data(facts, stores),
        *_network(facts, candidate, weights),
        *_input(facts, candidate, size_reason),
        Decision("training.batch_size", candidate.batch, batch_reason),
        *_optimiser(facts, candidate, pretrained=pretrained),
        Decision("training.loss", *_loss(facts)),
        Decision("training.precision", "bf16" if machine.bf16 else "32", _precision(machine)),
        Decision("training.channels_last", True, "convolutions are faster in this memory order"),
    ]


def _data(facts: StoreFacts, stores: list[str]) -> list[Decision]:
    others = f"; also there: {', '.join(facts.other_splits[:4])}" if facts.other_splits else ""
    validated = facts.validation > 0
    return [
        Decision(
            "data.store",
            stores[0] if len(stores) == 1 else stores,
            "the store that was looked at",
        ),
        Decision("data.split", facts.split, f"it has training cases{others}"),
        Decision(
            "data.validation",
            "valid" if validated else None,
            f"{facts.validation} cases" if validated else "the split has no validation cases",
        ),
    ]


def _network(facts: StoreFacts, candidate: Candidate, weights: str | None) -> list[Decision]:
    if candidate.network == PRETRAINED:
        why = "colour pictures: an encoder that has seen ImageNet learns faster and scores higher"
        return [
            Decision("network.name", PRETRAINED, why),
            Decision("network.pretrained", weights, "ImageNet weights of EfficientNet-Lite0"),
        ]
    if facts.colour:
        why = (
            "no ImageNet weights here; with a file of them (segweave plan --weights FILE) it "
            "would be timm-unet, which scores higher"
        )
    else:
        why = "not colour pictures, for which an encoder is pretrained"
    decisions = [
        Decision("network.name", candidate.network, why),
        Decision("network.options.width", candidate.width, "the widest that fits the time"),
    ]
    if candidate.slices > 1:
        decisions += [
            Decision("context.name", "sa-lstm", "reads the neighbouring slices"),
            Decision("weaving.at", "bottleneck", "the cheapest position"),
        ]
    return decisions


def _window(facts: StoreFacts, candidate: Candidate) -> str:
    if candidate.slices > 1:
        return "slices are about as near as pixels, and there is time to read neighbours"
    if not facts.volumes:
        return "single images, or frames whose neighbours add little"
    if facts.spacing is None:
        return "it is not known how far apart slices are"
    if facts.depth < 8:
        return f"{facts.depth} slices per case: too few neighbours"
    if reads_neighbours(facts):
        return "neighbours would take time that larger or more images use better"
    step, pixel = facts.spacing[0], max(facts.spacing[1:])
    return f"slices are {step:.3g} mm apart, pixels {pixel:.3g} mm: neighbours differ too much"


def _input(facts: StoreFacts, candidate: Candidate, size_reason: str) -> list[Decision]:
    decisions = []
    if facts.colour:
        names = ["red", "green", "blue"]
        decisions += [
            Decision("input.channels", names, "colour pictures"),
            Decision("input.colour_order", "rgb", "colour pictures"),
            Decision(
                "input.normalisation", "imagenet", "the same numbers for every colour picture"
            ),
        ]
    else:
        one = facts.channels == 1
        names = ["grey"] if one else [f"channel-{n + 1}" for n in range(facts.channels)]
        decisions.append(Decision("input.channels", names, f"{facts.channels} in each image"))
        decisions += _values(facts)
    decisions += [
        Decision("input.size", list(candidate.size), size_reason),
        Decision(
            "input.fit",
            "stretch" if facts.one_shape else "pad",
            "all images have one shape"
            if facts.one_shape
            else "images have several shapes, and anatomy is not stretched",
        ),
        Decision("input.slices", candidate.slices, _window(facts, candidate)),
    ]
    return decisions


def _values(facts: StoreFacts) -> list[Decision]:
    if facts.hounsfield is None:
        why = "grey values have no fixed unit, so each case is brought to mean 0 and deviation 1"
        return [Decision("input.normalisation", "case-zscore", why)]
    low, high, mean, sd = facts.hounsfield
    return [
        Decision("input.clip", [low, high], "0.5 and 99.5 percentile of what is labelled, in HU"),
        Decision("input.normalisation", "fixed", "values of CT have a unit (HU)"),
        Decision("input.mean", [mean], "mean of what is labelled in training cases"),
        Decision("input.sd", [sd], "standard deviation of the same"),
    ]


def _optimiser(facts: StoreFacts, candidate: Candidate, *, pretrained: bool) -> list[Decision]:
    rate = 1e-3 if pretrained or facts.colour else 2e-3
    rate *= math.sqrt(max(candidate.batch, 1) / 8)
    images = "colour pictures" if facts.colour else "grey images"
    return [
        Decision("training.optimiser.name", "adamw", "needs the least tuning"),
        Decision(
            "training.optimiser.rate",
            float(f"{rate:.2g}"),
            f"that of the shipped recipes for {images} at batch 8, times √(batch / 8)",
        ),
        Decision("training.optimiser.weight_decay", 0.01, "AdamW's usual one"),
    ]


def _loss(facts: StoreFacts) -> tuple[list[dict[str, Any]], str]:
    name, share = facts.rarest
    if share < _RARE:
        terms = [{"name": "dice", "weight": 0.5}, {"name": "focal", "weight": 0.5}]
        return terms, (
            f"{name} has {share:.2g} % of the pixels: focal loss keeps the background from "
            "drowning it"
        )
    terms = [{"name": "dice", "weight": 0.5}, {"name": "cross-entropy", "weight": 0.5}]
    return terms, f"no class is very rare (least: {name}, {share:.2g} % of the pixels)"


def _precision(machine: Machine) -> str:
    if machine.bf16:
        return "half precision is faster here, and loses nothing in training"
    return "half precision is not faster on this device"


def length_decisions(facts: StoreFacts, length: Length, hours: float) -> list[Decision]:
    """The decisions that depend on how many epochs fit."""
    whole = length.epochs * length.seconds / 60
    shown = f"{length.epochs} × {length.seconds:.3g} s = {whole:.3g} min"
    epochs = (
        f"{shown}, within {hours:g} h less a reserve"
        if length.limited
        else f"{shown}; more would bring little, though {hours:g} h would allow it"
    )
    validated = facts.validation > 0
    warm_up = min(200, length.all_steps // 20)
    return [
        Decision("training.epochs", length.epochs, epochs),
        Decision("training.schedule.name", "cosine", "falls to 0 at the last of these epochs"),
        Decision(
            "training.schedule.warm_up",
            warm_up,
            f"one step in twenty of {length.all_steps}, at most 200: a gentle start",
        ),
        Decision("training.augmentation", *augmentation(facts, length.epochs)),
        Decision(
            "training.validate_every",
            length.validate_every,
            "validation takes at most about a tenth of the time"
            if validated
            else "there is nothing to validate on",
        ),
        Decision(
            "training.checkpoint",
            "best" if validated else "last",
            "highest validation Dice" if validated else "without validation cases there is no best",
        ),
    ]


def augmentation(facts: StoreFacts, epochs: int) -> tuple[list[dict[str, Any]], str]:
    """The augmentations, and why."""
    mirror, why_mirror = allowed_mirror(facts)
    rotation, why_rotation = allowed_rotation(facts, mirror)
    geometry = {"rotation": rotation, "scale": 0.2, "mirror": mirror}
    terms: list[dict[str, Any]] = [{"name": "geometry", "options": geometry}]
    if epochs < _MANY_VALUES:
        values = f"values stay, as {epochs} epochs show each image only a few times"
    elif facts.colour:
        jitter = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}
        terms.append({"name": "colour-jitter", "probability": 0.5, "options": jitter})
        values = "colours depend on lamp and camera"
    else:
        names = ("brightness", "contrast", "gamma")
        terms += [{"name": name, "probability": 0.2} for name in names]
        values = "brightness and contrast depend on the device"
    shown = {"none": "not mirrored", "rows": "mirrored left-right", "both": "mirrored both ways"}
    return terms, f"{shown[mirror]}: {why_mirror}; turned: {why_rotation}; {values}"


def to_values(decisions: list[Decision]) -> dict[str, Any]:
    """The nested values of a recipe."""
    values: dict[str, Any] = {}
    for decision in decisions:
        *sections, last = decision.key.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = decision.value
    return values


def to_recipe(decisions: list[Decision]) -> Recipe:
    """The recipe of these decisions."""
    return parse_recipe(to_values(decisions))
