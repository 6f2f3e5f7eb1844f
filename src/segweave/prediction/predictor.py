"""Trained networks, one or several averaged: read back from their folders, and used to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import nn

from segweave.data.boxes import CaseBoxes
from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import InputError, UsageError, from_validation
from segweave.prediction.flips import Flips, check_flips
from segweave.prediction.results import Prediction
from segweave.prediction.session import Member, Session
from segweave.prediction.tiles import Tiles
from segweave.recipes import Recipe, load_recipe
from segweave.recipes.build import build_network
from segweave.recipes.recipe import Precision
from segweave.runs.run_folder import CARD, RECIPE, WEIGHTS, Run, model_folder
from segweave.runs.unfinished import card_of_unfinished
from segweave.runtime.devices import choose_device
from segweave.storage import read_json, sha256_of
from segweave.weights import load_weights, read_weights

if TYPE_CHECKING:
    from segweave.prediction.uncertainty import Uncertainty

_FORMATS = (1,)
_DOING = "loading a model"
_IDENTITY = ("title", "arm", "weights_sha256")
S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network, the specification of its input, and what its outputs mean.

    Attributes:
        network: a woven network, or any module (B, channels, height, width) → logits (B, classes,
            height, width). Predictions run on the device of its parameters.
        input: how a case's slices become the network's input.
        target: what the classes are.
        card: the model card, empty where there is none.
        precision: "32", or "bf16" for bfloat16 autocast, which is faster where the device
            multiplies in it and may change a few labels at edges.
        calibrated: whether probabilities get the temperature that `segweave calibrate` wrote into
            the card. Labels do not depend on it.
        denoise: predicts the image that the network reads, in place of the case's own.
    """

    network: nn.Module
    input: InputSpec
    target: TargetSpec
    card: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "32"
    calibrated: bool = True
    denoise: Predictor | None = None

    def __repr__(self) -> str:
        title = self.card.get("title") or type(self.network).__name__
        channels = ", ".join(self.input.channels)
        return f"Predictor({title}; input {channels}; classes {', '.join(self.target.names)})"

    @property
    def temperature(self) -> float | None:
        """The temperature that its probabilities get; None for none."""
        return _temperature((self,)) if self.calibrated else None

    def session(self) -> Session:
        """The network made ready once for many cases; a server keeps it."""
        member = Member(self.network, self.input, self.precision)
        temperature = self.temperature
        card = self.card if temperature is None else {**self.card, "temperature": temperature}
        return Session(
            (member,),
            self.target,
            card | _denoised_by(self.denoise),
            temperature=temperature,
            denoise=_session_of(self.denoise),
        )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The mean of the members' probabilities on the case's own grid, decided once.

    Attributes:
        members: at least one predictor. Networks and InputSpecs may differ, targets may not
            (colours aside).
        flips: mirror images that are predicted too.
        tiles: read images in tiles at their own resolution.
        calibrated: whether probabilities get the temperature that was fitted for these members,
            flips and tiles, where a member's card has one. Labels do not depend on it.
        denoise: predicts the image that the members read, in place of the case's own.

    Raises UsageError without members, and where their targets differ.
    """

    members: tuple[Predictor, ...]
    flips: Flips = "none"
    tiles: Tiles | None = None
    calibrated: bool = True
    denoise: Predictor | None = None

    def __post_init__(self) -> None:
        doing = "averaging predictions"
        check_flips(self.flips)
        if not self.members:
            raise UsageError(doing, expected="at least one model", found="none")
        for number, member in enumerate(self.members[1:], start=2):
            differing = target_differences(self.target, member.target)
            if differing:
                raise UsageError(
                    doing,
                    expected="models of the same classes",
                    found=f"in number {number}, compared with the first: {differing}",
                )

    @property
    def target(self) -> TargetSpec:
        """What the classes are, with the first member's colours."""
        return self.members[0].target

    @property
    def card(self) -> dict[str, Any]:
        """What summaries report about the model."""
        options: dict[str, Any] = {"flips": self.flips, **_denoised_by(self.denoise)}
        if self.tiles is not None:
            options["tiles"] = {"size": self.tiles.size, "overlap": self.tiles.overlap}
        if self.temperature is not None:
            options["temperature"] = self.temperature
        cards = [{k: m.card[k] for k in _IDENTITY if k in m.card} for m in self.members]
        if len(cards) == 1:
            return cards[0] | options
        return {"title": f"the mean of {len(cards)} models", "members": cards} | options

    @property
    def temperature(self) -> float | None:
        """The temperature that its probabilities get; None for none."""
        if not self.calibrated or not all(member.calibrated for member in self.members):
            return None
        return _temperature(self.members, self.flips, self.tiles)

    def session(self) -> Session:
        """The networks made ready once for many cases."""
        members = [Member(m.network, m.input, m.precision) for m in self.members]
        return Session(
            members,
            self.target,
            self.card,
            flips=self.flips,
            tiles=self.tiles,
            temperature=self.temperature,
            denoise=_session_of(self.denoise),
        )


def _session_of(denoise: Predictor | None) -> Session | None:
    return None if denoise is None else denoise.session()


def _denoised_by(denoise: Predictor | None) -> dict[str, Any]:
    """What a card states of the model that denoises; nothing where there is none."""
    if denoise is None:
        return {}
    return {"denoised_by": {key: denoise.card[key] for key in _IDENTITY if key in denoise.card}}


def load(
    path: str | Path,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: Precision = "32",
    calibrated: bool = True,
) -> Predictor:
    """The predictor of a run folder or of a model folder (weights.safetensors, card.json).

    Args:
        path: the folder.
        checkpoint: take the weights of this checkpoint of a run ("last", "best" or "best-on-test")
            instead of the finished model's; the training need not have ended.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        precision: "32", or "bf16" for bfloat16 autocast.
        calibrated: see `Predictor`; a checkpoint has no temperature.

    Raises InputError for a missing or unfinished folder, a card of another format, weights of
    another network (naming the first tensors that differ), weights that are not those of the card
    or not finite, and a pickle in place of weights. Example:

        >>> from segweave import load
        >>> load("runs/a", device="cpu").target.names
        ('background', 'right ventricle', 'myocardium', 'left ventricle')
    """
    folder = model_folder(Path(path), checkpoint)
    ended = (folder / CARD).is_file()
    card = (
        read_json(folder / CARD, _DOING, formats=_FORMATS, expected="a model card")
        if ended
        else card_of_unfinished(Run(folder))
    )
    recipe = _recipe(card, folder)
    input_spec = _spec(InputSpec, card, "input", folder / CARD)
    target = _spec(TargetSpec, card, "target", folder / CARD)
    network = build_network(recipe, len(input_spec.channels), target, pretrained=False)
    if checkpoint is None:
        weights_file = folder / WEIGHTS
        weights = read_weights(weights_file)
    else:
        run = Run(folder.parent if ended else folder)
        weights = run.weights(checkpoint)
        weights_file = run.checkpoints[checkpoint]
    title = str(card.get("title", recipe.network.name))
    load_weights(network, weights, _DOING, file=weights_file, title=title)
    if checkpoint is None:
        _check_digest(card, weights_file)
    network.eval().to(choose_device(device))
    # The temperature was fitted to the weights of the finished model.
    calibrated = calibrated and checkpoint is None
    return Predictor(network, input_spec, target, card, precision, calibrated)


def load_ensemble(
    paths: Sequence[str | Path],
    *,
    flips: Flips = "none",
    tiles: Tiles | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: Precision = "32",
    calibrated: bool = True,
    denoise: str | Path | None = None,
) -> Predictor | Ensemble:
    """`load` each path and average them; one path without flips and tiles is a plain Predictor.

    Args:
        paths: run folders or model folders.
        flips: mirror images that are predicted too.
        tiles: read images in tiles at their own resolution.
        checkpoint: see `load`; taken for each path.
        device: see `load`.
        precision: see `load`.
        calibrated: see `Ensemble`.
        denoise: the folder of a model that predicts the image which the others read.

    Raises what `load` and `Ensemble` raise.
    """
    first = None if denoise is None else load(denoise, device=device, precision=precision)
    members = tuple(
        load(
            path,
            checkpoint=checkpoint,
            device=device,
            precision=precision,
            calibrated=calibrated,
        )
        for path in paths
    )
    if len(members) == 1 and flips == "none" and tiles is None:
        return members[0] if first is None else replace(members[0], denoise=first)
    return Ensemble(members, flips, tiles, calibrated, first)


def predict(
    predictor: Predictor | Ensemble,
    case: Case,
    *,
    boxes: CaseBoxes | None = None,
    probabilities: bool = False,
    uncertainty: Uncertainty | None = None,
) -> Prediction:
    """Segment one case slice by slice.

    Args:
        predictor: what `load` returned, or an Ensemble.
        case: the image, in the source's own values.
        boxes: only for a network that is shown what to segment: one box (x0, y0, x1, y1) for all
            slices, a mapping from slice numbers to boxes, or an array (slices, 4), in the image's
            pixels counted from 0; a slice without a box becomes background.
        probabilities: also return the probabilities of the whole case.
        uncertainty: also return a map of it, 0 to 1: "entropy", or "mutual-information" of several
            models or flips.

    The probabilities of a slice are brought to the case's own grid, where `decide` makes the
    labels. For many cases, `predictor.session()` makes the network ready once. Raises InputError
    for a case that does not fit the InputSpec. Example:

        >>> from segweave import load, predict
        >>> from segweave.formats import read_case
        >>> case = read_case("scan.nii.gz")
        >>> predict(load("runs/a", device="cpu"), case).labels.shape == (case.slices, *case.size)
        True
    """
    if not isinstance(predictor, (Predictor, Ensemble)):
        raise UsageError(
            "predicting",
            expected="a Predictor or an Ensemble",
            found=type(predictor).__name__,
            remedy="segweave.load(FOLDER) makes one of a run; of a network of yours, "
            "segweave.prediction.Predictor(network, input, target)",
        )
    return predictor.session().predict(
        case, boxes=boxes, probabilities=probabilities, uncertainty=uncertainty
    )


def _temperature(
    members: Sequence[Predictor], flips: Flips = "none", tiles: Tiles | None = None
) -> float | None:
    cards = [member.card for member in members]
    if not any(card.get("temperatures") for card in cards):
        return None
    # Imported where it is needed: most models have none.
    from segweave.prediction.temperature import kept_temperature

    entry = kept_temperature(cards, flips, tiles)
    return None if entry is None else float(entry["temperature"])


def target_differences(target: TargetSpec, other: TargetSpec) -> str:
    """How `other` differs from `target` in what its classes mean, colours and codes aside; "" if
    nowhere.
    """
    first, second = (t.model_dump(exclude={"colours", "codes"}) for t in (target, other))
    return "; ".join(
        f"{key} is {second[key]}, not {value}"
        for key, value in first.items()
        if second[key] != value
    )


def _recipe(card: dict[str, Any], folder: Path) -> Recipe:
    if isinstance(card.get("recipe"), dict):
        return Recipe.from_dict(card["recipe"], file=folder / CARD)
    for file in (folder / RECIPE, folder.parent / RECIPE):
        if file.is_file():
            return load_recipe(file)
    raise InputError(
        _DOING, file=folder / CARD, expected=f"a recipe in it or {RECIPE} beside it", found="none"
    )


def _spec(model: type[S], card: dict[str, Any], key: str, file: Path) -> S:
    if key not in card:
        raise InputError(_DOING, file=file, expected=f"the key {key!r}", found="it is missing")
    try:
        return model.model_validate(card[key])
    except ValidationError as error:
        raise from_validation(error, _DOING, model=model, file=file, section=key) from None


def _check_digest(card: dict[str, Any], file: Path) -> None:
    expected = card.get("weights_sha256")
    if expected is None:
        return
    digest = sha256_of(file)
    if digest != expected:
        raise InputError(
            _DOING,
            file=file,
            expected=f"the weights that its card describes (sha256 {str(expected)[:12]}…)",
            found=f"other ones (sha256 {digest[:12]}…)",
            remedy="weights and card must come from one training; copy both again",
        )
