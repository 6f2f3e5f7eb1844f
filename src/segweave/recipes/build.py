"""Builds the network that a recipe describes, its start values drawn from streams of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segweave.data.specs import TargetSpec
from segweave.networks import create_network
from segweave.recipes.recipe import Recipe
from segweave.runtime.randomness import Purpose, derive_seed
from segweave.weaving import WovenNetwork, weave


def build_network(
    recipe: Recipe, in_channels: int, target: TargetSpec, *, pretrained: bool = True
) -> WovenNetwork:
    """The recipe's network with its context module woven in, for (B, S, in_channels, H, W).

    The network draws from the stream "network", the module from "context", so that two arms with
    one seed begin with the same network; torch's global generator is left as it was. Without a
    context module the network is woven with `identity`, which changes nothing. `network.options`
    may give `classes` where position `output` makes the target's classes from other maps.
    `pretrained=False` leaves the recipe's file of weights unread (weights will be loaded anyway).
    Raises UsageError for names and options that do not exist.
    """
    chosen = recipe.network
    options = {"classes": target.classes, **chosen.options}
    with _stream(recipe.seed, "network"):
        network = create_network(
            chosen.name,
            in_channels=in_channels,
            form=chosen.form,
            pretrained=chosen.pretrained if pretrained else None,
            **options,
        )
    if recipe.context is None:
        return weave(network, "identity", slices=recipe.slices, classes=target.classes)
    with _stream(recipe.seed, "context"):
        return weave(
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


@contextmanager
def _stream(seed: int, purpose: Purpose) -> Iterator[None]:
    """Let torch's generator on the CPU run in a stream of its own inside the block."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(derive_seed(seed, purpose))
    try:
        yield
    finally:
        torch.set_rng_state(before)
