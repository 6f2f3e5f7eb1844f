"""`save_model`: a network that was trained in the user's own loop becomes a model folder, which
`segweave.load` opens.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.networks import first_inputs
from segweave.recipes import Recipe
from segweave.recipes.build import build_network
from segweave.runs.model_card import LIMITS, describe_network, write_model_folder
from segweave.runs.run_folder import CARD
from segweave.storage import atomic_folder
from segweave.weaving import WovenNetwork
from segweave.weights import compare_weights, load_weights

_DOING = "saving a model"
_TRAINING = (
    "in a loop outside segweave; of the recipe, the sections network, context, weaving and input "
    "describe this model, the section training does not"
)
# The same weights give the same numbers; another order of summation may change the last digits.
_TOLERANCE = 1e-4


def save_model(
    folder: str | Path,
    network: nn.Module,
    settings: Recipe | Mapping[str, Any],
    target: TargetSpec,
    *,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Save a network that was trained in your own loop as a model folder.

    The folder holds weights.safetensors and card.json. `segweave.load`, `predict` and `evaluate`
    take it as they take the model of a run. A model that the folder held before is replaced.

    A model folder holds no code: whoever opens it builds the network from `settings`. So the
    network must be one that settings can describe: a network by name (a plug-in of yours counts),
    with or without a woven context module. This is checked before anything is written: the network
    that the settings describe has the same tensors and, with the same weights, the same logits.

    Args:
        folder: the model folder; it is new, empty, or a model folder already.
        network: the trained network: a woven one, or a network of `create_network`. It is left as
            it is, on its device and in its mode.
        settings: a recipe, or the sections `network`, `context`, `weaving` and `input` of one, as
            plain values. `input` is what the loop fed the network with.
        target: what the network's outputs mean.
        about: what else the card shall state, such as training data and scores, as JSON values.

    Raises:
        UsageError: the folder holds something else, or `about` has a key of the card.
        InputError: settings that can't be read, or that describe another network.

    Example:
        >>> import tempfile
        >>> import segweave
        >>> from segweave.data.specs import TargetSpec
        >>> network = segweave.create_network("unet", in_channels=1, classes=2, width=4)
        >>> woven = segweave.weave(network, "sa-lstm", at="bottleneck", slices=3)
        >>> settings = {
        ...     "network": {"name": "unet", "options": {"width": 4}},
        ...     "context": {"name": "sa-lstm"},
        ...     "weaving": {"at": "bottleneck"},
        ...     "input": {"size": [64, 64], "slices": 3},
        ... }
        >>> target = TargetSpec(names=("background", "heart"))
        >>> folder = segweave.save_model(tempfile.mkdtemp(), woven, settings, target)
        >>> segweave.load(folder, device="cpu").target.names
        ('background', 'heart')
    """
    path = Path(folder)
    _check_folder(path)
    recipe = _recipe(settings)
    card = describe_network(recipe, target, network)
    card |= {"training": _TRAINING, "limits": LIMITS}
    taken = sorted({*card, "weights_sha256"} & set(about or {}))
    if taken:
        raise UsageError(
            _DOING, expected="about: keys that the card does not use", found=", ".join(taken)
        )
    trained = copy.deepcopy(network).to("cpu").float().eval()
    tensors = trained.state_dict()
    if not isinstance(trained, WovenNetwork):
        # As the network in a woven one is called.
        tensors = {f"network.{name}": tensor for name, tensor in tensors.items()}
    _check_described(trained, tensors, recipe, target)
    with atomic_folder(path) as temporary:
        write_model_folder(temporary, tensors, card | dict(about or {}))
    return path


def _check_folder(folder: Path) -> None:
    if not folder.exists() or (folder / CARD).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UsageError(
            _DOING,
            file=folder,
            expected="a new or empty folder, or a model folder",
            found="something else",
            remedy="choose another folder",
        )


def _recipe(settings: Recipe | Mapping[str, Any]) -> Recipe:
    if isinstance(settings, Recipe):
        return settings
    # A recipe states how long the training is; the card states that this section is not used.
    return Recipe.from_dict({"training": {"steps": 1}, **settings})


def _check_described(
    trained: nn.Module, tensors: Mapping[str, Tensor], recipe: Recipe, target: TargetSpec
) -> None:
    """Raise InputError unless the settings describe this network."""
    built = build_network(recipe, len(recipe.input.channels), target, pretrained=False).eval()
    expected = f"the network that the settings describe: {recipe.network.name}"
    if recipe.context is not None:
        expected += f" with {recipe.context.name} at {recipe.weaving.at}"
    expected += f", {recipe.slices} slices"
    remedy = (
        "write every option of create_network and weave into the settings; a network of your own "
        "class needs a card (a plug-in), so that it can be built again"
    )
    misfit = compare_weights(built.state_dict(), tensors)
    found = str(misfit) if misfit else ""
    if not misfit and isinstance(trained, WovenNetwork) and trained.slices != recipe.slices:
        found = f"one that reads {trained.slices} slices"
    if found:
        raise InputError(_DOING, expected=expected, found=found, remedy=remedy)
    load_weights(built, tensors, _DOING)
    if not _agree(built, trained, recipe):
        raise InputError(
            _DOING,
            expected=expected,
            found="one that computes other logits with the same weights",
            remedy=remedy,
        )


def _agree(built: WovenNetwork, trained: nn.Module, recipe: Recipe) -> bool:
    """Whether both compute the same logits of a window of noise."""
    size = recipe.input.size or _some_size(built.network)
    generator = torch.Generator().manual_seed(0)
    shape = (recipe.slices, len(recipe.input.channels), *size)
    window = torch.randn(shape, generator=generator)
    given = first_inputs(built.network, window)
    batch = {name: mask[None] for name, mask in given.items()}
    with torch.no_grad():
        first = built(window[None], **batch).logits
        if isinstance(trained, WovenNetwork):
            output = trained(window[None], **batch)
        else:
            centre = recipe.slices // 2
            output = trained(window[centre, None], **{n: m[centre, None] for n, m in given.items()})
    second: Tensor = output.logits if hasattr(output, "logits") else output
    if first.shape != second.shape:
        return False
    bound = _TOLERANCE * float(first.abs().max() + 1)
    return bool((first - second).abs().max() <= bound)


def _some_size(network: nn.Module) -> tuple[int, int]:
    """A size that the network works with, for settings that give a spacing and no size."""
    fixed = getattr(network, "fixed", ())
    if fixed:
        return (fixed[0], fixed[0]) if isinstance(fixed[0], int) else fixed[0]
    divisor = getattr(network, "divisor", 1)
    side = -(-max(getattr(network, "smallest", 1), 64) // divisor) * divisor
    return side, side
