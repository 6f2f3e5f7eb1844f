"""The recipe: one frozen model that says everything about a training, all defaults included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)

from segweave.data.specs import (
    AugmentationChoice,
    AugmentationTerm,
    GeometryOptions,
    InputSpec,
)
from segweave.data.splits import choose_parts
from segweave.recipes.optimisation import Average, Optimiser, Schedule, Section

if TYPE_CHECKING:
    from segweave.data.store import CaseStore

Precision = Literal["32", "bf16"]
Scale = Annotated[float, Field(gt=0, le=4)]

_TERMS = TypeAdapter(tuple[AugmentationTerm, ...])

FORMAT: Literal[1] = 1
DEFAULT_POSITION = "bottleneck"


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


class LossTerm(Section):
    """One term of the loss.

    Attributes:
        name: a loss of the registry `losses`.
        weight: > 0; what the loss is multiplied by.
        output: what the loss reads, "logits" or the name of an auxiliary output of the network. A
            list of names gives the sum over them. A loss that reads all outputs takes none.
        options: arguments of the loss.
    """

    name: str
    weight: float = Field(default=1.0, gt=0)
    output: str | tuple[str, ...] = "logits"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("output", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not names:
            raise ValueError("output is the name of an output, or a list of such names")
        if not all(isinstance(name, str) for name in names):
            raise ValueError("output is the name of an output, or a list of such names")
        return value

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that the loss reads."""
        return (self.output,) if isinstance(self.output, str) else self.output


def _default_loss() -> tuple[LossTerm, ...]:
    return LossTerm(name="dice", weight=0.5), LossTerm(name="cross-entropy", weight=0.5)


class TrainingChoice(Section):
    """How the network is trained.

    Attributes:
        epochs: how often each sample is read. Exactly one of `epochs` and `steps` is given.
        steps: number of optimiser steps.
        batch_size: samples (windows) per batch, ≥ 1.
        accumulate: batches per optimiser step, ≥ 1; their gradients are averaged. What is left at
            the end of an epoch makes a step with fewer batches.
        scales: each batch is trained on at each of these scales, one after the other, > 0. Sizes
            are rounded to the network's divisor. Each scale counts as a batch.
        scales_per_batch: "all", or "one" for one of `scales`, drawn for each batch.
        optimiser: see `Optimiser`.
        schedule: see `Schedule`.
        loss: a list of terms, whose weighted values are added; see `LossTerm`.
        augmentation: the options of the augmentation `geometry`, or a list of augmentations
            (`AugmentationTerm`), which are applied in that order.
        gradient_clip: largest norm of the gradient, > 0; None for no limit.
        average: see `Average`; None trains without an average.
        precision: "32", or "bf16" for mixed precision.
        deterministic: ask for repeatable kernels on a GPU (a CPU needs no asking).
        channels_last: keep weights and maps in that memory order: for convolutional networks about
            1.2× faster on a CPU; some networks do not work with it.
        validate_every: epochs between validations, ≥ 1.
        patience: end the training after so many validations in a row without a higher Dice, ≥ 1;
            None trains to the end. Needs validation cases.
        checkpoint_every: optimiser steps between checkpoints, ≥ 1; None saves after each epoch.
        checkpoint: which one becomes the model, "last" or "best" (highest validation Dice).
    """

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1)
    scales_per_batch: Literal["all", "one"] = "all"
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    loss: tuple[LossTerm, ...] = Field(default_factory=_default_loss, min_length=1)
    augmentation: AugmentationChoice = GeometryOptions()
    gradient_clip: float | None = Field(default=None, gt=0)
    average: Average | None = None
    precision: Precision = "32"
    deterministic: bool = False
    channels_last: bool = False
    validate_every: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    checkpoint: Literal["last", "best"] = "last"

    @field_validator("augmentation", mode="before")
    @classmethod
    def _mapping_or_list(cls, value: Any) -> Any:
        # A union would report what is wrong with both of its members.
        if isinstance(value, list | tuple):
            return _TERMS.validate_python(tuple(value))
        return GeometryOptions.model_validate(value)

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
        margin: the difference in Dice (0 to 1) that is too small to matter, fixed before the
            training: `segweave compare` tests equivalence within it.
        margin_reason: why it is too small to matter.
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
    margin: float | None = Field(default=None, gt=0, lt=1)
    margin_reason: str = ""

    @model_validator(mode="after")
    def _margin_has_a_reason(self) -> Recipe:
        if (self.margin is None) == bool(self.margin_reason.strip()):
            raise ValueError("a margin together with its reason (margin, margin_reason)")
        return self

    @model_validator(mode="after")
    def _name_the_arm(self) -> Recipe:
        if not self.arm:
            # The model is frozen for everyone else.
            self.__dict__["arm"] = derived_arm(self.network.name, self.context, self.weaving.at)
        return self

    @model_validator(mode="after")
    def _best_needs_validation(self) -> Recipe:
        if self.training.schedule.name == "plateau" and self.data.validation is None:
            raise ValueError("schedule 'plateau' needs validation cases (data.validation)")
        if self.training.checkpoint == "best" and self.data.validation is None:
            raise ValueError("checkpoint 'best' needs validation cases (data.validation)")
        if self.training.patience is not None and self.data.validation is None:
            raise ValueError("patience needs validation cases (data.validation)")
        return self

    @property
    def slices(self) -> int:
        """Length of the window that the network reads."""
        return self.input.slices

    def choose_parts(self, store: CaseStore) -> dict[str, list[str]]:
        """Case ids of "training", "validation" and "test", where the recipe names them and the
        store has them; raises UsageError as `segweave.data.splits.choose_parts`.
        """
        data = self.data
        split = None if data.split is None else data.split.replace("{fold}", str(self.fold))
        parts = {"training": data.training, "validation": data.validation, "test": data.test}
        doing = f"choosing cases of the store {store.name}"
        return choose_parts(store.splits, store.groups, split, parts, doing)

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
