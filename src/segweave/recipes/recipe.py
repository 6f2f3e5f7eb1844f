"""The recipe: one frozen model that says everything about a training, all defaults included; and
the YAML that it is written as.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
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
from segweave.errors import InputError
from segweave.recipes.explain import explained
from segweave.recipes.sections import (
    DEFAULT_POSITION,
    Average,
    ContextChoice,
    DataChoice,
    NetworkChoice,
    Optimiser,
    Schedule,
    Section,
    WeavingChoice,
)

if TYPE_CHECKING:
    from segweave.data.store import CaseStore

Precision = Literal["32", "bf16"]
Scale = Annotated[float, Field(gt=0, le=4)]

_TERMS = TypeAdapter(tuple[AugmentationTerm, ...])

FORMAT: Literal[1] = 1
READING = "reading a recipe"
_LARGEST = 1_000_000  # bytes; a recipe is a page of text
_MOST_VALUES = 10_000
# What the library raises for texts that are no YAML, and its constructors for values that are none.
NO_YAML = (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError)


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

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, file: Path | None = None, set_keys: Collection[str] = ()
    ) -> Recipe:
        """A recipe from plain values. Raises InputError that names the key, and `file` where it is
        given; `set_keys` are those that came from `--set`.
        """
        number = values.get("format", 1)
        if number != 1:
            raise InputError(
                READING,
                file=file,
                expected="format: 1",
                found=f"format: {number}",
                remedy="this recipe was written for another version of segweave",
            )
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise explained(error, cls, READING, file=file, set_keys=set_keys) from None

    @classmethod
    def from_file(cls, path: Path) -> Recipe:
        """The resolved recipe that a training wrote. Raises InputError as `from_dict`, and where
        the file can't be read.
        """
        return cls.from_dict(read_keys(path), file=path)

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


def read_keys(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe's YAML file; raises InputError as `read_yaml`, and where
    there are none.
    """
    values = read_yaml(path, READING)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(READING, file=path, expected="keys and values", found=_name_type(values))
    return values


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which YAML itself would silently overrule."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, doing: str) -> Any:
    """What a YAML file of a person holds, as plain values.

    Raises InputError where it can't be read, is larger than 1 MB, is not YAML, holds something that
    no plain value is, or more than 10,000 values (aliases to aliases count each time).
    """
    try:
        if not path.is_file():
            found = "no such file" if not path.exists() else "no ordinary file"
            raise InputError(doing, file=path, expected="a YAML file", found=found)
        if path.stat().st_size > _LARGEST:
            raise InputError(
                doing, file=path, expected="a page of text", found=f"{path.stat().st_size} bytes"
            )
        return plain_values(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(
            doing, file=path, expected="valid YAML", found=f"{where}{error.problem}"
        ) from None
    except InputError:
        raise
    except (OSError, *NO_YAML) as error:
        raise InputError(
            doing, file=path, expected="a YAML file", found=f"{type(error).__name__}: {error}"
        ) from None


def plain_values(text: str) -> Any:
    """The values of a YAML text; raises ValueError where there are too many."""
    # _Loader is a SafeLoader: no YAML tag can run code.
    value = yaml.load(text, Loader=_Loader)
    left = [value]
    for _ in range(_MOST_VALUES):
        if not left:
            return value
        one = left.pop()
        if isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
        elif not isinstance(one, str | int | float | None):
            raise ValueError(f"a value of type {type(one).__name__}; a text goes in quotes")
    raise ValueError(f"more than {_MOST_VALUES:,} values")


def _name_type(value: Any) -> str:
    if value is None:
        return "an empty file"
    return {"list": "a list", "str": "text", "dict": "keys that are not text"}.get(
        type(value).__name__, type(value).__name__
    )
