"""Finds networks, context modules, data sets, metrics, losses and augmentations by reading their
cards, without importing them.

Each entry is one file in its package. The file starts with a literal `CARD = SomeCard(...)` (or
`CARDS = (SomeCard(...), ...)` where several names share one implementation), which may hold text
constants that the file defines above it. The card is read from the syntax tree, so that listing
entries imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from segweave.card_files import file_of, load_file, package_files, parameters_of, read_cards
from segweave.errors import InputError, UsageError, nearest
from segweave.storage import sha256_of, sha256_of_text

Form = Literal["paper", "released", "literal"]
Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Card:
    """What every card states.

    Attributes:
        name: how users call the entry.
        title: one line for lists.
        entry: the class or function in the same file.
        paper: the source.
        licence: of the code that it follows.
        options: arguments that the name presets.
    """

    name: str
    title: str
    entry: str
    paper: str = ""
    licence: str = "Apache-2.0"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkCard(Card):
    """A network.

    Attributes:
        forms: the forms that it has. A network without released code may have `literal` beside
            `paper`: the printed equations and nothing else.
        divisor: height and width of an image are multiples of it (default options).
        smallest: height and width of an image are at least this (default options).
        fixed: the only sizes that work, each a (height, width) or one number for a square; empty
            where every size works that `divisor` and `smallest` allow (default options).
        prompt: what the network is shown besides the image, "" for most: "box".
        positions: for a position whose meaning is not plain, one sentence that explains it.
        weights: pretrained weights of the backbone with the default options, one mapping for each:
            `tag` ("imagenet"), `source` (a timm name or an address), `licence`, `mean` and `sd` of
            the normalisation, and, where known, `sha256` of the file; `backbone` names the
            submodule where there are several.
        unfolded: number of batch norms that cannot be folded into a convolution (with
            `tiny_options`), and the reason.
        tiny_options: options that make it small enough for quick tests.
    """

    forms: tuple[Form, ...] = ("released",)
    divisor: int = 1
    smallest: int = 1
    fixed: tuple[tuple[int, int] | int, ...] = ()
    prompt: Literal["", "box"] = ""
    positions: dict[str, str] = field(default_factory=dict)
    weights: tuple[dict[str, Any], ...] = ()
    unfolded: tuple[int, str] = (0, "")
    tiny_options: dict[str, Any] = field(default_factory=dict)


def broken_rule(
    size: Size, *, divisor: int = 1, smallest: int = 1, fixed: Sequence[Size | int] = ()
) -> tuple[str, list[Size]] | None:
    """What is expected of the size of an image, and the nearest sizes that work, where `size` does
    not; None where it does. The rule is that of a `NetworkCard`, or of a network.
    """
    height, width = size
    allowed = [(n, n) if isinstance(n, int) else n for n in fixed]
    fits = height % divisor == 0 and width % divisor == 0 and min(height, width) >= smallest
    if fits and (not allowed or size in allowed):
        return None
    if allowed:
        by_distance = sorted(allowed, key=lambda one: abs(one[0] - height) + abs(one[1] - width))
        return "the size " + " or ".join(f"{h}×{w}" for h, w in allowed), by_distance[:1]
    lowest = -(-smallest // divisor) * divisor
    nearby = [
        (
            max(lowest, (height + up * (divisor - 1)) // divisor * divisor),
            max(lowest, (width + up * (divisor - 1)) // divisor * divisor),
        )
        for up in (0, 1)
    ]
    nearby.sort(key=lambda one: abs(one[0] - height) + abs(one[1] - width))
    expected = f"height and width divisible by {divisor} and at least {smallest}"
    return expected, list(dict.fromkeys(nearby))


@dataclass(frozen=True)
class ContextCard(Card):
    """A context module: `kind` is "module", "ablation" or "control"."""

    forms: tuple[Form, ...] = ("paper",)
    kind: Literal["module", "ablation", "control"] = "module"
    equations: str = ""


@dataclass(frozen=True)
class DatasetCard(Card):
    """A data set: what its raw release holds (`expected` counts) and how its stacks are to be read.
    `source` says what is converted: a "folder", or a "table" (a CSV file, or the folder of one).

    `ranges` over the cases of the release are shown and checked by `check`: slices per case, "size"
    (rows and columns), "step" (mm between slices), "pixel" (mm per pixel). `generic` sets take
    images of any kind, so that no layout says that it is this one; `generic_layouts` are such
    layouts of another set. `examples` are commands, each with what it is for.
    """

    stack: Literal["space", "time", "single"] = "space"
    kind: Literal["exclusive", "binary", "overlapping", "image"] = "exclusive"
    classes: tuple[str, ...] = ()
    expected: dict[str, int] = field(default_factory=dict)
    terms: str = ""
    source: Literal["folder", "table"] = "folder"
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    generic: bool = False
    generic_layouts: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class MetricCard(Card):
    """A metric: a function `entry(prediction, reference, ...)` that returns a number, nan where it
    is undefined. `segweave.metrics.compute_metric` calls it.

    Attributes:
        reads: what the two arrays are.
            "labels": two masks of one class, (height, width) or (slices, height, width), not 0 is
            foreground.
            "instances": two maps of the objects of one class, of the same shapes, 0 is background.
            "soft-map": the probability of one class (height, width), 0..1 or uint8, and its mask.
            "probabilities": (..., classes, height, width) and class ids (..., height, width); one
            channel is the probability of foreground. The function also takes `ignored=`, the id of
            pixels that do not count, or None.
            "images": two images; the function also takes `data_range=`.
        spacing: whether the function takes `spacing=`, mm per axis or None for pixels.
        unit: "" (none), "mm" (px where the spacing is unknown), "ml" (px where it is unknown and in
            2D), "image" (that of the images' values), "dB" or another. A metric in mm is a
            distance: it is undefined where a side lacks the class, and tables print its median and
            how often it failed.
        better: "higher" or "lower".
        label: the short name in table headers; empty takes the name.
        absent: whether it scores the classes that the reference lacks, and only these.
        shared: for masks, a function of the same file that measures many classes at once,
            `shared(prediction, reference, classes=, [spacing=])` → class id → result.
        value: the attribute or method of such a result that is the metric; a method is called with
            the card's options.
    """

    reads: Literal["labels", "instances", "soft-map", "probabilities", "images"] = "labels"
    spacing: bool = False
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"
    label: str = ""
    absent: bool = False
    shared: str = ""
    value: str = ""

    @property
    def heading(self) -> str:
        """The short name in table headers."""
        return self.label or self.name

    @property
    def is_distance(self) -> bool:
        """Whether the value is a length."""
        return self.unit == "mm"


@dataclass(frozen=True)
class LossCard(Card):
    """A training loss: `reads` is "map" (it is called with one map of the network's output and the
    label) or "all" (with the whole Output and the label). `task` is what the network predicts,
    "labels" or an "image" (`TargetSpec.task`).
    """

    reads: Literal["map", "all"] = "map"
    task: Literal["labels", "image"] = "labels"


@dataclass(frozen=True)
class AugmentationCard(Card):
    """A change of training images that is drawn at random: `changes` is "positions" (image and
    label move together) or "values" (the image alone changes). `strong_options` make it visible on
    every image, for tests.
    """

    changes: Literal["positions", "values"] = "values"
    strong_options: dict[str, Any] = field(default_factory=dict)


C = TypeVar("C", bound=Card)
T = TypeVar("T")


class Registry(Generic[C]):
    """The entries of one package, from its own files, from installed plug-ins, and from files that
    the user names.
    """

    def __init__(self, what: str, package: str, card_type: type[C], group: str) -> None:
        self.what = what
        self.package = package
        self.card_type = card_type
        self.group = group
        self._cards: dict[str, tuple[C, str]] | None = None
        self._plugin_hashes: dict[str, str] = {}

    def names_in(self, file: str) -> list[str]:
        """The names whose cards are in a file outside segweave that was imported."""
        modules = {module: sys.modules.get(module) for _, module in self._found().values()}
        held = {
            module
            for module, loaded in modules.items()
            if not module.startswith(f"{self.package}.")
            and getattr(loaded, "__file__", None) == file
        }
        return [name for name, (_, module) in self._found().items() if module in held]

    def cards(self) -> dict[str, C]:
        """Every card by name, in alphabetical order; imports none of the files that the package
        holds.
        """
        return {name: card for name, (card, _) in sorted(self._found().items())}

    def card(self, name: str) -> C:
        """The card of `name`; an unknown name raises UsageError with the nearest ones."""
        found = self._found()
        if name not in found:
            raise UsageError(
                f"choosing a {self.what}", found=repr(name), remedy=nearest(name, found)
            )
        return found[name][0]

    def entry(self, name: str) -> Any:
        """The class or function that the card of `name` points to (imports its file)."""
        return self.attribute(name, self.card(name).entry)

    def check_options(self, name: str, options: Iterable[str], doing: str) -> None:
        """Raise UsageError for an option that the entry `name` does not take, as far as its file
        shows that without being run.
        """
        entry = self.card(name).entry
        file = file_of(self._found()[name][1])
        known = None if file is None else parameters_of(file, entry)
        for option in options:
            if known is not None and option not in known:
                raise UsageError(
                    doing, found=f"unknown option {option!r}", remedy=nearest(option, known)
                )

    def attribute(self, name: str, attribute: str) -> Any:
        """Any object of the file that holds the card of `name` (imports that file)."""
        self.card(name)
        module = importlib.import_module(self._found()[name][1])
        if not hasattr(module, attribute):
            raise InputError(
                f"loading the {self.what} {name!r}",
                file=module.__file__,
                expected=f"{attribute!r} in this file, as the card says",
                found="no such name",
                remedy=nearest(attribute, [one for one in vars(module) if one[0] != "_"]),
            )
        return getattr(module, attribute)

    def add_file(self, path: str | Path) -> list[str]:
        """Register the cards of a user's file (`--plugin`), run it, and return the names. Its
        sha256 is kept in `plugin_hashes`.
        """
        path = Path(path).resolve()  # processes in other folders get this name
        cards = list(read_cards(path, self.card_type))
        if not cards:
            return []
        digest = sha256_of(path)
        # Two files of one name in two folders are two modules.
        module_name = f"segweave_plugin_{path.stem}_{sha256_of_text(str(path))[:8]}"
        if module_name not in sys.modules:
            load_file(path, module_name)
        for card in cards:
            self._register(card, module_name)
        self._plugin_hashes[str(path)] = digest
        return [card.name for card in cards]

    @property
    def plugin_hashes(self) -> dict[str, str]:
        """sha256 of each file that `add_file` registered."""
        return dict(self._plugin_hashes)

    def _found(self) -> dict[str, tuple[C, str]]:
        if self._cards is None:
            self._cards = {}
            for path, module in package_files(self.package):
                for card in read_cards(path, self.card_type):
                    self._register(card, module)
            for point in entry_points(group=self.group):
                spec = importlib.util.find_spec(point.module)
                if spec is not None and spec.origin is not None:
                    for card in read_cards(Path(spec.origin), self.card_type):
                        if not point.attr or card.name == point.name:
                            self._register(card, point.module)
        return self._cards

    def _register(self, card: C, module: str) -> None:
        found = self._found()
        if card.name in found and found[card.name][1] != module:
            raise UsageError(
                f"registering a {self.what}",
                expected="a name that is not taken",
                found=f"{card.name!r} in {module} and in {found[card.name][1]}",
            )
        found[card.name] = (card, module)


networks = Registry("network", "segweave.networks", NetworkCard, "segweave.networks")
contexts = Registry("context module", "segweave.context", ContextCard, "segweave.contexts")
datasets = Registry("data set", "segweave.datasets", DatasetCard, "segweave.datasets")
metrics = Registry("metric", "segweave.metrics", MetricCard, "segweave.metrics")
losses = Registry("loss", "segweave.training.losses", LossCard, "segweave.losses")
augmentations = Registry(
    "augmentation", "segweave.data.augmentations", AugmentationCard, "segweave.augmentations"
)
REGISTRIES: tuple[Registry[Any], ...] = (
    networks,
    contexts,
    datasets,
    metrics,
    losses,
    augmentations,
)


def register_plugin(path: str | Path) -> list[str]:
    """Register every card of a user's file with the registry that it belongs to; returns the names
    (the command's `--plugin`).
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(
            "loading a plug-in",
            file=file,
            expected="a Python file",
            found="no file",
            remedy="check the path behind --plugin",
        )
    names = [name for registry in REGISTRIES for name in registry.add_file(file)]
    if not names:
        raise InputError(
            "loading a plug-in",
            file=file,
            expected="at least one CARD = NetworkCard(...), ContextCard(...), ...",
            found="none",
        )
    return names


def plugin_hashes() -> dict[str, str]:
    """Path → sha256 of every user's file that was registered."""
    return {path: hash for kind in REGISTRIES for path, hash in kind.plugin_hashes.items()}


def build(
    doing: str, entry: Callable[..., T], preset: Mapping[str, Any], given: Mapping[str, Any]
) -> T:
    """Call `entry` with `preset` options overridden by `given`; raises UsageError for an option
    that it does not take.
    """
    known = [
        name
        for name, parameter in inspect.signature(entry).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    for name in given:
        if name not in known:
            raise UsageError(doing, found=f"unknown option {name!r}", remedy=nearest(name, known))
    return entry(**{**preset, **given})
