"""Reads a trained network back from its folder: weights, card, recipe, all checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import InputError
from segweave.prediction.flips import Flips
from segweave.prediction.predictor import Ensemble, Predictor
from segweave.prediction.tiles import Tiles
from segweave.recipes import Recipe, load_recipe
from segweave.recipes.build import build_network
from segweave.recipes.loading import parse_recipe
from segweave.recipes.recipe import Precision
from segweave.runs.run_folder import CARD, MODEL, RECIPE, WEIGHTS, Run
from segweave.runtime.devices import choose_device
from segweave.storage import read_json, sha256_of
from segweave.weights import read_weights

_FORMATS = (1,)
_DOING = "loading a model"
S = TypeVar("S", bound=BaseModel)


def load(
    path: str | Path,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: Precision = "32",
) -> Predictor:
    """The predictor of a run folder or of a model folder (weights.safetensors, card.json).

    Args:
        path: the folder.
        checkpoint: take the weights of this checkpoint of a run ("last", "best" or "best-on-test")
            instead of the finished model's.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        precision: "32", or "bf16" for bfloat16 autocast.

    Raises InputError for a missing or unfinished folder, a card of another format, weights of
    another network (naming the first tensors that differ), weights that are not those of the card
    or not finite, and a pickle in place of weights. Example:

        >>> from segweave import load
        >>> load("runs/a", device="cpu").target.names
        ('background', 'right ventricle', 'myocardium', 'left ventricle')
    """
    folder = _model_folder(Path(path))
    card = read_json(folder / CARD, _DOING, formats=_FORMATS, expected="a model card")
    recipe = _recipe(card, folder)
    input_spec = _spec(InputSpec, card, "input", folder)
    target = _spec(TargetSpec, card, "target", folder)
    network = build_network(recipe, len(input_spec.channels), target, pretrained=False)
    if checkpoint is None:
        weights_file = folder / WEIGHTS
        weights = read_weights(weights_file)
    else:
        run = Run(folder.parent)
        weights = run.weights(checkpoint)
        weights_file = run.checkpoints[checkpoint]
    _check_fit(network, weights, weights_file, str(card.get("title", recipe.network.name)))
    if checkpoint is None:
        _check_digest(card, weights_file)
    network.load_state_dict(weights)
    return Predictor(network.eval().to(choose_device(device)), input_spec, target, card, precision)


def load_ensemble(
    paths: Sequence[str | Path],
    *,
    flips: Flips = "none",
    tiles: Tiles | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: Precision = "32",
) -> Predictor | Ensemble:
    """`load` each path and average them; one path without flips and tiles is a plain Predictor.

    Args:
        paths: run folders or model folders.
        flips: mirror images that are predicted too.
        tiles: read images in tiles at their own resolution.
        checkpoint: see `load`; taken for each path.
        device: see `load`.
        precision: see `load`.

    Raises what `load` and `Ensemble` raise.
    """
    members = tuple(
        load(path, checkpoint=checkpoint, device=device, precision=precision) for path in paths
    )
    if len(members) == 1 and flips == "none" and tiles is None:
        return members[0]
    return Ensemble(members, flips, tiles)


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
    entries = sorted(entry.name for entry in path.iterdir())[:6]
    unfinished = (path / RECIPE).is_file()
    raise InputError(
        _DOING,
        file=path,
        expected=f"a folder with {MODEL}/{CARD} or {CARD}",
        found="a run that has not ended" if unfinished else ", ".join(entries) or "an empty folder",
        remedy="train again with the same recipe and folder: the training continues"
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


def _spec(kind: type[S], card: dict[str, Any], key: str, folder: Path) -> S:
    try:
        return kind.model_validate(card[key])
    except KeyError:
        problem = "it is missing"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        problem = f"{field or key}: {first['msg']}"
    raise InputError(_DOING, file=folder / CARD, expected=f"a valid {key!r}", found=problem)


def _check_fit(network: nn.Module, weights: dict[str, Tensor], file: Path, title: str) -> None:
    """Raise InputError that names the first tensors in which weights and network differ."""
    expected = network.state_dict()
    differing = [
        f"{name} is missing"
        if name not in weights
        else f"{name} is {_shape(weights[name])}, not {_shape(tensor)}"
        for name, tensor in expected.items()
        if name not in weights or weights[name].shape != tensor.shape
    ]
    differing += [f"{name} is not part of it" for name in weights if name not in expected]
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise InputError(
            _DOING,
            file=file,
            expected=f"weights of the network {title}, {len(expected)} tensors",
            found="; ".join(differing[:3]) + more,
            remedy="these weights belong to another network; take the folder as training wrote it",
        )
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                _DOING,
                file=file,
                expected="finite weights",
                found=f"NaN or infinite ones in {name}",
                remedy="the training diverged; take another checkpoint or a smaller rate",
            )


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a single number"


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
