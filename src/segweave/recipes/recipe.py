"""The recipe: one frozen model that says everything about a training, all defaults included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segweave.data.augmentation import Augmentation
from segweave.data.specs import InputSpec

Precision = Literal["32", "bf16"]

FORMAT: Literal[1] = 1
DEFAULT_POSITION = "bottleneck"


class Section(BaseModel):
    """A section of a recipe: unknown keys are refused, values can't be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Optimiser(Section):
    """The optimiser; `rate` is the full learning rate, `betas` belong to Adam and AdamW, `momentum`
    to SGD.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.999)


class Schedule(Section):
    """How the rate falls over all optimiser steps.

    `poly`: rate × (1 − step / steps)^power; `released` repeats the published code, in which step t
    uses the value of step t − 1. The first `warm_up` steps rise linearly to the full rate.
    """

    name: Literal["poly", "cosine", "constant"] = "poly"
    power: float = Field(default=0.9, gt=0)
    warm_up: int = Field(default=0, ge=0)
    released: bool = False


class LossTerm(Section):
    """One term of the loss: a loss by name, its weight, and the output that it reads ("logits" or
    the name of an auxiliary output).
    """

    name: str
    weight: float = Field(default=1.0, gt=0)
    output: str = "logits"
    options: dict[str, Any] = Field(default_factory=dict)


def _default_loss() -> tuple[LossTerm, ...]:
    return LossTerm(name="dice", weight=0.5), LossTerm(name="cross-entropy", weight=0.5)


class TrainingChoice(Section):
    """How the network is trained.

    Exactly one of `epochs` and `steps` (optimiser steps) says how long. `gradient_clip` is the
    largest norm of the gradient. `validate_every` and `checkpoint_every` count epochs and steps;
    None saves at the end of each epoch only. `checkpoint` is the one that becomes the model, said
    beforehand. `deterministic` asks for repeatable kernels on a GPU (a CPU needs no asking).
    `channels_last` keeps weights and maps in that memory order: for convolutional networks about
    1.2× faster on a CPU; some networks of one's own may not bear it.
    """

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=8, ge=1)
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    loss: tuple[LossTerm, ...] = Field(default_factory=_default_loss, min_length=1)
    augmentation: Augmentation = Augmentation()
    gradient_clip: float | None = Field(default=None, gt=0)
    precision: Precision = "32"
    deterministic: bool = False
    channels_last: bool = False
    validate_every: int = Field(default=1, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    checkpoint: Literal["last", "best"] = "last"

    @model_validator(mode="before")
    @classmethod
    def _precision_is_text(cls, values: Any) -> Any:
        # YAML reads `precision: 32` as a number.
        if isinstance(values, dict) and values.get("precision") == 32:
            return {**values, "precision": "32"}
        return values

    @model_validator(mode="after")
    def _one_length(self) -> TrainingChoice:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, not both and not neither")
        return self


class Recipe(Section):
    """Everything about a training. Runs whose recipes are equal except for seed, fold, label and
    paths are one arm (`segweave.recipes.arm_identity`).

    Attributes:
        format: number of the recipe format.
        arm: the label of the arm in tables. Empty: derived, `NETWORK` or `NETWORK+CONTEXT`, then
            `@POSITION` where that is not the bottleneck.
        seed: start values, order of samples, augmentation and dropout derive from it.
        fold: the fold of a cross-validation: `{fold}` in `data.split`.
        data: see `DataChoice`.
        network: see `NetworkChoice`.
        context: see `ContextChoice`; null for the network alone.
        weaving: see `WeavingChoice`.
        input: see `InputSpec`.
        training: see `TrainingChoice`.
        protocol: `published` also keeps the checkpoint that is best on the test cases, as the
            released training does.
    """

    format: Literal[1] = FORMAT
    arm: str = ""
    seed: int = Field(default=0, ge=0)
    fold: int = Field(default=0, ge=0)
    data: DataChoice = DataChoice()
    network: NetworkChoice
    context: ContextChoice | None = None
    weaving: WeavingChoice = WeavingChoice()
    input: InputSpec = InputSpec()
    training: TrainingChoice
    protocol: Literal["clean", "published"] = "clean"

    @model_validator(mode="after")
    def _name_the_arm(self) -> Recipe:
        if not self.arm:
            # The model is frozen for everyone else.
            self.__dict__["arm"] = derived_arm(self.network.name, self.context, self.weaving.at)
        return self

    @model_validator(mode="after")
    def _best_needs_validation(self) -> Recipe:
        if self.training.checkpoint == "best" and self.data.validation is None:
            raise ValueError("checkpoint 'best' needs validation cases (data.validation)")
        return self

    @property
    def slices(self) -> int:
        """Length of the window that the network reads."""
        return self.input.slices

    def to_dict(self) -> dict[str, Any]:
        """Every field, defaults included, as plain values."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved recipe as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def derived_arm(network: str, context: ContextChoice | None, at: str) -> str:
    """The label of an arm without a given one: `unet`, `unet+sa-lstm`, `unet+sa-lstm@skips`."""
    if context is None:
        return network
    return f"{network}+{context.name}" + (f"@{at}" if at != DEFAULT_POSITION else "")


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (value of `one`, value of `other`) wherever two resolved recipes differ."""
    return dotted_differences(one.to_dict(), other.to_dict())


def dotted_differences(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (value in `one`, value in `other`) wherever two nested mappings differ."""
    result: dict[str, tuple[Any, Any]] = {}
    for key in {**one, **other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = dotted_differences(a, b)
            result |= {f"{key}.{name}": pair for name, pair in inner.items()}
        elif a != b:
            result[str(key)] = (a, b)
    return result
