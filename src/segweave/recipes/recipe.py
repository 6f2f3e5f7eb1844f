"""The recipe: one frozen model that says everything about a training, all defaults included."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segweave.data.augmentation import Augmentation
from segweave.data.specs import InputSpec

Precision = Literal["32", "bf16"]

FORMAT: Literal[1] = 1


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values can't be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataChoice(Section):
    """Which cases are trained and validated on.

    `store` is the folder that `prepare` wrote (usually given beside the recipe). `split` names one
    of the store's splits ("{fold}" in it stands for the recipe's fold); None takes the store's only
    one beside its folds. `training`, `validation` and `test` are parts of that split; the test part
    is read only where the `published` protocol scores it during training.
    """

    store: str | None = None
    split: str | None = None
    training: str = "train"
    validation: str | None = "valid"
    test: str | None = "test"


class NetworkChoice(Section):
    """The network by name, with the options of its own constructor; `pretrained` is a file of
    weights.
    """

    name: str
    form: str = "released"
    options: dict[str, Any] = Field(default_factory=dict)
    pretrained: str | None = None


class ContextChoice(Section):
    """The context module by name, with the options of its own constructor."""

    name: str
    form: Literal["paper", "released"] = "paper"
    options: dict[str, Any] = Field(default_factory=dict)


class WeavingChoice(Section):
    """Where the context module is woven in (see `segweave.weaving.weave`)."""

    at: str = "bottleneck"
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
    """Everything about a training. `arm` is what tables call it; runs whose recipes differ only in
    seed and fold are one arm.
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


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (value of `one`, value of `other`) wherever two resolved recipes differ."""
    found: dict[str, tuple[Any, Any]] = {}

    def walk(a: Any, b: Any, path: str) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in {**a, **b}:
                walk(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        elif a != b:
            found[path] = (a, b)

    walk(one.to_dict(), other.to_dict(), "")
    return found
