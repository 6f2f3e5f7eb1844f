"""Segmentation networks: one file an architecture, found by its card. Knows nothing of context
modules or data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segweave import registry
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork

__all__ = [
    "Decoded",
    "Features",
    "Output",
    "SegmentationNetwork",
    "create_network",
    "list_networks",
]


def list_networks() -> list[str]:
    """Names of all networks, plug-ins included."""
    return list(registry.networks.cards())


def create_network(
    name: str,
    *,
    in_channels: int = 3,
    classes: int = 1,
    form: str = "released",
    pretrained: str | Path | None = None,
    **options: Any,
) -> SegmentationNetwork:
    """A network by name.

    `classes` is the number of output channels (logits). `form` matters only where the card names
    two. `pretrained` is a path to a file of weights (safetensors, or a released checkpoint). A
    wrong option raises UsageError and names the nearest one; so does "imagenet", which none of
    these networks has.
    """
    from segweave.registry import build

    card = registry.networks.card(name)
    entry = registry.networks.entry(name)
    given: dict[str, Any] = {"in_channels": in_channels, "classes": classes, **options}
    if len(card.forms) > 1:
        given["form"] = form
    network: SegmentationNetwork = build(
        f"creating the network {name!r}", entry, card.options, given
    )
    if pretrained is not None:
        if pretrained == "imagenet":
            raise UsageError(
                f"creating the network {name!r}",
                expected="pretrained: a file of weights",
                found="'imagenet', which this network has no weights from",
                remedy="weave into a model of segmentation_models_pytorch, whose encoder_weights "
                "may be imagenet",
            )
        from segweave.author_weights import load_released
        from segweave.weights import load_weights, read_weights

        weights = read_weights(pretrained)
        if set(weights) == set(network.state_dict()):
            doing = f"creating the network {name!r}"
            load_weights(network, weights, doing, file=pretrained, title=name)
        else:
            load_released(network, weights)
    return network
