"""Turns a file of weights that the authors of a network released into a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from segweave.author_weights import LoadReport, load_released, released_misfit
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.recipes import Recipe, load_recipe, parse_recipe
from segweave.recipes.build import build_network
from segweave.runs.model_card import LIMITS, describe_network, write_model_folder
from segweave.storage import atomic_folder, sha256_of
from segweave.weights import compare_weights, load_weights, read_weights

_DOING = "converting weights"


def convert_weights(
    file: str | Path,
    out: str | Path,
    target: TargetSpec,
    *,
    recipe: str | Path | Recipe | None = None,
    network: str | None = None,
    sets: Sequence[str] = (),
) -> LoadReport:
    """Write a model folder from an authors' file; `predict`, `evaluate` and `info` take it.

    The recipe says what the file belongs to: the network with its options, the context module where
    the file is a whole released model (`acdc-mt-unet-sa-lstm-published`), and how images are fed.

    Args:
        file: tensors alone, as safetensors or as a torch file (a state dict, or one under
            "state_dict" or "model"); a pickle that would run code is refused.
        out: the model folder, new or empty.
        target: what the outputs mean.
        recipe: a recipe by name or file; either this or `network`.
        network: the name of a network alone, with its default options.
        sets: fields of the recipe to override, as "input.size=[224,224]".

    Returns:
        The report with the released names of all tensors: `matched`, and `dead`, which the file
        holds and no output depends on.

    Raises:
        UsageError: not exactly one of `recipe` and `network`, an output folder that holds
            something, a network whose released names are not known.
        InputError: a file that can't be read, or tensors that are missing, left over or of another
            shape, each of them listed; nothing is written then.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            _DOING, file=folder, expected="a new or empty folder", found="something else"
        )
    chosen = _recipe(recipe, network, sets)
    built = build_network(chosen, len(chosen.input.channels), target, pretrained=False)
    # A whole released model names the tensors of network and module, a network alone its own.
    part: nn.Module = built if chosen.context is not None else built.network
    report = _load(part, Path(file))
    card = describe_network(chosen, target, built) | {
        "training": "elsewhere; of the recipe, the sections network, context, weaving and input "
        "describe this model",
        "converted_from": {"file": Path(file).name, "sha256": sha256_of(file)},
        "limits": LIMITS,
    }
    with atomic_folder(folder) as temporary:
        write_model_folder(temporary, built.state_dict(), card)
    return report


def _recipe(recipe: str | Path | Recipe | None, network: str | None, sets: Sequence[str]) -> Recipe:
    if (recipe is None) == (network is None):
        raise UsageError(
            _DOING,
            expected="either a recipe or the name of a network",
            found="both" if recipe is not None else "neither",
        )
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return load_recipe(recipe, sets)
    # A recipe states how long a training is; the card states that this section is not used.
    return parse_recipe({"network": {"name": network}, "training": {"steps": 1}}, sets=sets)


def _load(part: nn.Module, file: Path) -> LoadReport:
    weights = read_weights(file)
    if not compare_weights(part.state_dict(), weights):
        load_weights(part, weights, _DOING)
        return LoadReport(tuple(weights), (), (), ())
    misfit = released_misfit(part, weights)
    if misfit:
        raise InputError(
            f"{_DOING}: {len(misfit.names)} tensors do not match",
            file=file,
            found="\n    " + "\n    ".join(misfit.lines),
            remedy="check that the file belongs to this network, with the options (--set "
            "network.options.…) and the number of classes that it was trained with",
        )
    return load_released(part, weights)
