"""Segmentation networks: one file per architecture, found by its card. Knows nothing of context
modules or data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from segweave import registry
from segweave.networks.base import (
    Decoded,
    Features,
    Feedback,
    Output,
    SegmentationNetwork,
    WeightsReport,
    check_size,
    mask_of,
)
from segweave.networks.pretrained import head_tensors, load_pretrained
from segweave.registry import build

__all__ = [
    "Decoded",
    "Features",
    "Feedback",
    "Output",
    "SegmentationNetwork",
    "WeightsReport",
    "check_size",
    "create_network",
    "list_networks",
    "mask_of",
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
    new_head: bool = False,
    **options: Any,
) -> SegmentationNetwork:
    """A network by name.

    Args:
        name: one of `list_networks()`.
        in_channels: channels of an image.
        classes: channels of the logits.
        form: "paper" or "released"; matters only where the card names both.
        pretrained: where start values come from: "imagenet" (the backbone's weights through timm,
            which downloads them if they are not in its cache), "imagenet:FILE" (a local file of the
            same weights), a file of weights of the whole network, or the folder of a run. What
            became of each tensor is in `network.pretrained`.
        new_head: let the tensors that depend on the number of classes keep their start values, for
            weights that were trained with other classes.
        options: those of the network's constructor.

    Raises:
        UsageError: an unknown name or option, with the nearest one that exists.
        InputError: weights of another network.
        MissingExtraError: a network that needs a library of an extra.

    Example:
        >>> from segweave import create_network
        >>> network = create_network("unet", in_channels=1, classes=4, width=8)
        >>> network.channels["bottleneck"]
        (128,)
    """
    card = registry.networks.card(name)
    entry = registry.networks.entry(name)
    doing = f"creating the network {name!r}"

    def build_with(classes: int) -> SegmentationNetwork:
        given: dict[str, Any] = {"in_channels": in_channels, "classes": classes, **options}
        if len(card.forms) > 1:
            given["form"] = form
        network: SegmentationNetwork = build(doing, entry, card.options, given)
        return network

    def head() -> set[str]:
        # On the device "meta" a network has shapes and no numbers, and draws none.
        with torch.device("meta"):
            networks = [build_with(classes), build_with(classes + 1)]
        return head_tensors([{k: v.shape for k, v in n.state_dict().items()} for n in networks])

    network = build_with(classes)
    if pretrained is not None:
        network.pretrained = load_pretrained(
            network, pretrained, listed=card.weights, head=head, new_head=new_head
        )
    return network
