"""What every section of a recipe is, and those that hold plain values: optimiser, schedule,
average, data, network, context module and weaving.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_POSITION = "bottleneck"


class Section(BaseModel):
    """A section of a recipe: unknown keys are refused, values can't be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ParameterGroup(Section):
    """Parameters with a rate or a weight decay that differs from the optimiser's.

    Attributes:
        match: pattern of parameter names, "network.backbone.*": `*` stands for any text, `?` for
            one character. A parameter belongs to the first group that matches it.
        rate: the full learning rate, ≥ 0; None takes the optimiser's. The schedule acts on it.
        weight_decay: ≥ 0; None takes the optimiser's.
    """

    match: str
    rate: float | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)


class Optimiser(Section):
    """The optimiser.

    Attributes:
        name: "adam", "adamw" or "sgd".
        rate: the full learning rate, > 0; the schedule lowers it.
        weight_decay: ≥ 0; decoupled from the gradient in "adamw" alone.
        momentum: 0 ≤ momentum < 1, of "sgd".
        betas: decay of both running means, of "adam" and "adamw".
        groups: parameters with another rate or weight decay.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.999)
    groups: tuple[ParameterGroup, ...] = ()


class Schedule(Section):
    """How the rate falls over all optimiser steps.

    Attributes:
        name: "poly" is rate × (1 − step / steps)^power, "cosine" half a cosine down to 0,
            "constant" the full rate, "step" a fall after every so many epochs, "plateau" a fall
            whenever the validation Dice has not risen for a while.
        power: > 0, of "poly".
        factor: 0 < factor < 1; what each fall of "step" and "plateau" multiplies the rate by.
        every: epochs between two falls of "step", ≥ 1.
        patience: of "plateau": the rate falls when so many validations in a row, and one more, have
            brought no higher Dice, ≥ 0.
        lowest: the rate that "plateau" does not fall below, ≥ 0.
        warm_up: number of first steps in which the rate rises linearly to the full rate.
        released: repeats the published code, in which step t uses the value of step t − 1.
    """

    name: Literal["poly", "cosine", "constant", "step", "plateau"] = "poly"
    power: float = Field(default=0.9, gt=0)
    factor: float = Field(default=0.1, gt=0, lt=1)
    every: int = Field(default=100, ge=1)
    patience: int = Field(default=10, ge=0)
    lowest: float = Field(default=0.0, ge=0)
    warm_up: int = Field(default=0, ge=0)
    released: bool = False


class Average(Section):
    """An exponential moving average of the weights, which is validated and becomes the model.

    Attributes:
        decay: 0 < decay < 1; after each step, average ← decay · average + (1 − decay) · weights.
            The average begins with the weights after the first step.
    """

    decay: float = Field(default=0.999, gt=0, lt=1)


class DataChoice(Section):
    """Which cases are trained on and which are validated on.

    Attributes:
        store: the store that `segweave prepare` wrote, or a list of stores that are trained on
            together. Usually given on the command line.
        split: a split of the store. `{fold}` in the name stands for the recipe's fold. Without it,
            the store's only split that is not a fold.
        training: the part of the split to train on.
        validation: the part to validate on; null where there is none.
        test: the test part. Training reads it only under `protocol: published`.
    """

    store: str | tuple[str, ...] | None = None
    split: str | None = None
    training: str = "train"
    validation: str | None = "valid"
    test: str | None = "test"


class NetworkChoice(Section):
    """The network.

    Attributes:
        name: a name that `segweave networks` lists.
        form: `paper` or `released`, where the network's card lists both.
        options: options of the network's constructor.
        pretrained: weights to start from: `imagenet`, `imagenet:FILE`, a file of the whole
            network's weights, or the folder of a finished run.
        new_head: let the head start anew where the weights to start from have another one (other
            classes).
    """

    name: str
    form: str = "released"
    options: dict[str, Any] = Field(default_factory=dict)
    pretrained: str | None = None
    new_head: bool = False


class ContextChoice(Section):
    """The context module; null for the network alone.

    Attributes:
        name: a name that `segweave contexts` lists.
        form: as printed in the paper, or as the released code computes.
        options: options of the module's constructor.
    """

    name: str
    form: Literal["paper", "released"] = "paper"
    options: dict[str, Any] = Field(default_factory=dict)


class WeavingChoice(Section):
    """Where and how the context module is woven in.

    Attributes:
        at: `encoder`, `bottleneck`, `skips`, `decoder`, `output`, or the dotted name of a
            submodule.
        tiles: cut the map of a single image into tiles × tiles; the sequence of a tile is the tiles
            before it and itself. Needs `input.slices: 1`.
        join: add the module's output to the map, or replace the map by it.
        channels: channels of the map at a dotted name or at `output`, where the network does not
            declare them.
    """

    at: str = DEFAULT_POSITION
    tiles: int = Field(default=1, ge=1)
    join: Literal["replace", "add"] = "add"
    channels: int | None = Field(default=None, ge=1)
