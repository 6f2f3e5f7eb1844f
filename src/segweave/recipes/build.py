"""Builds the network of a recipe. Its start values come from separate random streams, or from
trained weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from segweave.context.identity import Identity
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.networks import create_network
from segweave.recipes.recipe import Recipe
from segweave.runtime.randomness import Purpose, derive_seed
from segweave.weaving import WovenNetwork, weave
from segweave.weights import is_imagenet, read_weights, weights_file

_MODULES = "context."


def build_network(
    recipe: Recipe, in_channels: int, target: TargetSpec, *, pretrained: bool = True
) -> WovenNetwork:
    """The recipe's network with its context module woven in, for (B, S, in_channels, H, W).

    The network draws from the stream "network", the module from "context", so that two arms with
    one seed begin with the same network; torch's global generator is left as it was. Without a
    context module the network is woven with `identity`, which changes nothing.

    Where `network.pretrained` leads to a woven network (a run, say), its context modules start from
    those weights too, if they have the same tensors; another module starts anew.

    Args:
        recipe: the resolved recipe. `network.options` may give `classes` where position `output`
            makes the target's classes from other maps.
        in_channels: channels of a slice.
        target: the classes.
        pretrained: False where weights will be loaded into the network: `network.pretrained` stays
            unread, and the start values are any.

    Raises UsageError for names and options that do not exist, InputError for weights that do not
    fit.
    """
    chosen = recipe.network
    options = {"classes": target.classes, **chosen.options}
    start = chosen.pretrained if pretrained else None
    seed = recipe.seed if pretrained else None
    with _stream(seed, "network"):
        network = create_network(
            chosen.name,
            in_channels=in_channels,
            form=chosen.form,
            pretrained=start,
            new_head=chosen.new_head,
            **options,
        )
    if recipe.context is None:
        bare = partial(Identity, both_sides=recipe.slices > 1)
        return weave(network, bare, slices=recipe.slices, classes=target.classes)
    with _stream(seed, "context"):
        woven = weave(
            network,
            recipe.context.name,
            at=recipe.weaving.at,
            slices=recipe.slices,
            tiles=recipe.weaving.tiles,
            join=recipe.weaving.join,
            form=recipe.context.form,
            context_options=recipe.context.options,
            channels=recipe.weaving.channels,
            classes=target.classes,
        )
    if start is not None and not is_imagenet(start):
        _load_modules(woven, start, new_head=chosen.new_head)
    return woven


def _load_modules(woven: WovenNetwork, start: str, *, new_head: bool) -> None:
    """Fill the context modules from a woven network's file that has the same tensors for them."""
    file = weights_file(start)
    given = {n: t for n, t in read_weights(file).items() if n.startswith(_MODULES)}
    wanted = {n: t for n, t in woven.state_dict().items() if n.startswith(_MODULES)}
    if set(given) != set(wanted):
        return  # the file holds a bare network or other modules
    differing = [name for name, tensor in wanted.items() if given[name].shape != tensor.shape]
    if differing and not new_head:
        raise InputError(
            "loading weights into a context module",
            file=file,
            expected=f"{differing[0]} of shape {tuple(wanted[differing[0]].shape)}",
            found=f"shape {tuple(given[differing[0]].shape)}",
            remedy="weave with the options that these weights were trained with, or let what "
            "differs start anew (network.new_head: true)",
        )
    fitting = {name: tensor for name, tensor in given.items() if name not in differing}
    woven.load_state_dict(fitting, strict=False)


@contextmanager
def _stream(seed: int | None, purpose: Purpose) -> Iterator[None]:
    """Let torch's generator on the CPU run in a separate stream inside the block; without a seed,
    what is drawn does not matter, and the generator is only left as it was.
    """
    before = torch.get_rng_state()
    if seed is not None:
        torch.default_generator.manual_seed(derive_seed(seed, purpose))
    try:
        yield
    finally:
        torch.set_rng_state(before)
