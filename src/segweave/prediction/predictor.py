"""A trained network with what it is fed and what its outputs mean, read back from its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import nn

from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import InputError, from_validation
from segweave.recipes import Recipe, load_recipe
from segweave.recipes.build import build_network
from segweave.recipes.loading import parse_recipe
from segweave.recipes.recipe import Precision
from segweave.runs.layout import CARD, MODEL, RECIPE, WEIGHTS
from segweave.runs.run_folder import Run
from segweave.runtime.devices import choose_device
from segweave.storage import read_json, sha256_of
from segweave.weights import load_weights, read_weights

_FORMAT = 1
_DOING = "loading a model"
S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network, its InputSpec and TargetSpec, and its model card (empty where it has none).

    `network` is a woven network, or any module (B, channels, height, width) → logits
    (B, classes, height, width). Predictions run where its parameters lie; with `precision` "bf16"
    under bfloat16 autocast, which is faster where the device multiplies in it and may change a few
    labels at edges.
    """

    network: nn.Module
    input: InputSpec
    target: TargetSpec
    card: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "32"


def load(
    path: str | Path,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: Precision = "32",
) -> Predictor:
    """The predictor of a run folder or of a model folder (weights.safetensors, card.json).

    `checkpoint` takes the weights of that checkpoint of a run (last, best, best-on-test) in place
    of the finished model's. Raises InputError for a missing or unfinished folder, a card of another
    format, weights of another network (naming the first tensors that differ), weights that are not
    those of the card or not finite, and a pickle in place of weights.
    """
    folder = _model_folder(Path(path))
    card = read_json(folder / CARD, _DOING, formats=(_FORMAT,), expected="a model card")
    recipe = _recipe(card, folder)
    input_spec = _spec(InputSpec, card, "input", folder / CARD)
    target = _spec(TargetSpec, card, "target", folder / CARD)
    network = build_network(recipe, len(input_spec.channels), target, pretrained=False)
    if checkpoint is None:
        weights_file = folder / WEIGHTS
        weights = read_weights(weights_file)
    else:
        run = Run(folder.parent)
        weights = run.weights(checkpoint)
        weights_file = run.checkpoints[checkpoint]
    title = str(card.get("title", recipe.network.name))
    load_weights(network, weights, _DOING, file=weights_file, title=title)
    if checkpoint is None:
        _check_sum(card, weights_file)
    place = choose_device(device)
    return Predictor(network.eval().to(place), input_spec, target, card, precision)


def _model_folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(
            _DOING,
            file=path,
            expected="a run folder or a model folder",
            found="a file" if path.exists() else "nothing there",
            remedy=f"give the folder that holds {MODEL}/{CARD}" if path.exists() else None,
        )
    for folder in (path / MODEL, path):
        if (folder / CARD).is_file():
            return folder
    held = sorted(entry.name for entry in path.iterdir())[:6]
    unfinished = (path / RECIPE).is_file()
    raise InputError(
        _DOING,
        file=path,
        expected=f"a folder with {MODEL}/{CARD} or {CARD}",
        found="a run that has not ended" if unfinished else ", ".join(held) or "an empty folder",
        remedy="train again with the same recipe and folder: it goes on where it stopped"
        if unfinished
        else None,
    )


def _recipe(card: dict[str, Any], folder: Path) -> Recipe:
    if isinstance(card.get("recipe"), dict):
        return parse_recipe(card["recipe"], file=folder / CARD)
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


def _check_sum(card: dict[str, Any], file: Path) -> None:
    expected = card.get("weights_sha256")
    if expected is None:
        return
    found = sha256_of(file)
    if found != expected:
        raise InputError(
            _DOING,
            file=file,
            expected=f"the weights that its card describes (sha256 {str(expected)[:12]}…)",
            found=f"other ones (sha256 {found[:12]}…)",
            remedy="weights and card must come from one training; copy both again",
        )
