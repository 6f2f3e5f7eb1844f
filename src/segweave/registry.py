"""Finds networks, context modules, data sets, metrics, losses and augmentations by reading their
cards, without importing them.

Each entry is one file in its room. The file starts with a literal `CARD = SomeCard(...)` (or `CARDS
= (SomeCard(...), ...)` where several names share one implementation). The card is read from the
syntax tree, so that listing entries imports no torch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from segweave.errors import InputError, UsageError, nearest


@dataclass(frozen=True)
class Card:
    """What every card says. `entry` names the class or function in the same file; `options` are
    arguments that the name presets.
    """

    name: str
    title: str
    entry: str
    paper: str = ""
    licence: str = "Apache-2.0"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkCard(Card):
    """A network: `forms` it has, the size rule (`divisor`, `smallest`, or `fixed`), its default
    size, licence of the original, and `tiny_options` that make it small enough for quick tests.
    """

    forms: tuple[str, ...] = ("released",)
    divisor: int = 1
    smallest: int = 1
    fixed: int | None = None
    default_size: int = 224
    original_licence: str = ""
    tiny_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ContextCard(Card):
    """A context module: `kind` is "module", "ablation" or "control"."""

    forms: tuple[str, ...] = ("paper",)
    kind: str = "module"
    equations: str = ""


@dataclass(frozen=True)
class DatasetCard(Card):
    """A data set: what its raw release holds (`expected` counts) and how its stacks are to be read.
    `source` says what is converted: a "folder", or a "table" (a CSV file, or the folder of one).
    """

    stack: str = "space"
    kind: str = "exclusive"
    classes: tuple[str, ...] = ()
    expected: dict[str, int] = field(default_factory=dict)
    terms: str = ""
    source: str = "folder"


@dataclass(frozen=True)
class MetricCard(Card):
    """A metric: `unit` is "" (none), "mm" (px where spacing is unknown) or "dB"; `better` is
    "higher" or "lower".
    """

    unit: str = ""
    better: str = "higher"


@dataclass(frozen=True)
class LossCard(Card):
    """A training loss: `reads` is "map" (it is called with one map of the network's output and the
    label) or "all" (with the whole Output and the label).
    """

    reads: str = "map"


@dataclass(frozen=True)
class AugmentationCard(Card):
    """A change of training images that is drawn at random: `changes` is "positions" (image and
    label move together) or "values" (the image alone changes). `strong_options` make it visible on
    every image, for tests.
    """

    changes: str = "values"
    strong_options: dict[str, Any] = field(default_factory=dict)


C = TypeVar("C", bound=Card)
T = TypeVar("T")


class Registry(Generic[C]):
    """The entries of one room, from its own files, from installed plug-ins, and from files named by
    the user.
    """

    def __init__(self, what: str, package: str, card_type: type[C], group: str) -> None:
        self.what = what
        self.package = package
        self.card_type = card_type
        self.group = group
        self._cards: dict[str, tuple[C, str]] | None = None
        self._plugin_hashes: dict[str, str] = {}

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
        card = self.card(name)
        module = importlib.import_module(self._found()[name][1])
        return getattr(module, card.entry)

    def add_file(self, path: str | Path) -> list[str]:
        """Register the cards of a user's file (`--plugin`), run it, and return the names. Its
        sha256 is kept in `plugin_hashes`.
        """
        path = Path(path).resolve()  # processes that are started elsewhere are handed this name
        cards = list(read_cards(path, self.card_type))
        if not cards:
            return []
        module_name = f"segweave_plugin_{path.stem}"
        if module_name not in sys.modules:
            load_file(path, module_name)
        for card in cards:
            self._register(card, module_name)
        self._plugin_hashes[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return [card.name for card in cards]

    @property
    def plugin_hashes(self) -> dict[str, str]:
        """sha256 of each file that `add_file` registered."""
        return dict(self._plugin_hashes)

    def _found(self) -> dict[str, tuple[C, str]]:
        if self._cards is None:
            self._cards = {}
            for path in _package_files(self.package):
                for card in read_cards(path, self.card_type):
                    self._register(card, f"{self.package}.{path.stem}")
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


def read_cards(path: Path, card_type: type[C]) -> Iterator[C]:
    """The cards of type `card_type` that a Python file declares at its top level, read without
    running it.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"reading the cards of a file: {error}", file=path) from error
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        if statement.targets[0].id == "CARD":
            calls = [statement.value]
        elif statement.targets[0].id == "CARDS" and isinstance(
            statement.value, ast.Tuple | ast.List
        ):
            calls = statement.value.elts
        else:
            continue
        for call in calls:
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id == card_type.__name__
            ):
                yield _card_from_call(call, card_type, path)


def _card_from_call(call: ast.Call, card_type: type[C], path: Path) -> C:
    known = {f.name for f in fields(card_type)}
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg not in known:
            raise InputError(
                f"reading a {card_type.__name__}",
                file=path,
                expected=", ".join(sorted(known)),
                found=str(keyword.arg),
                remedy=nearest(str(keyword.arg), known),
            )
        try:
            values[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError as error:
            raise InputError(
                f"reading a {card_type.__name__}",
                file=path,
                expected=f"a literal for {keyword.arg}",
                found=ast.unparse(keyword.value),
            ) from error
    try:
        return card_type(**values)
    except TypeError as error:
        raise InputError(f"reading a {card_type.__name__}: {error}", file=path) from error


def load_file(path: Path, module_name: str) -> ModuleType:
    """Import one Python file under `module_name`."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError("loading a plug-in", file=path, expected="a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception:
        del sys.modules[module_name]
        raise
    return module


def _package_files(package: str) -> list[Path]:
    # Every room is a plain folder of this package, so its place is known without importing it.
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    return sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))


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
        raise InputError("loading a plug-in", file=file, expected="a Python file", found="no file")
    names = [name for registry in REGISTRIES for name in registry.add_file(file)]
    if not names:
        raise InputError(
            "loading a plug-in",
            file=file,
            expected="at least one CARD = NetworkCard(...), ContextCard(...), ...",
            found="none",
        )
    return names


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
