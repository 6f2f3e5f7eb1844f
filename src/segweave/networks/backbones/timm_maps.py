"""A timm backbone that returns its feature maps."""

from __future__ import annotations

from typing import Any

from torch import nn

from segweave.errors import MissingExtraError


def timm_maps(name: str, in_channels: int, **options: Any) -> tuple[nn.Module, list[int]]:
    """A timm backbone without weights that returns a list of maps, and their channels.

    Args:
        name: a timm name.
        in_channels: channels of an image; timm adapts the first convolution.
        options: further ones of `timm.create_model`, such as `out_indices`.

    Raises MissingExtraError where timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            f"creating the backbone {name!r}", library="timm", extra="zoo"
        ) from error
    backbone: Any = timm.create_model(
        name, features_only=True, pretrained=False, in_chans=in_channels, **options
    )
    return backbone, [int(channels) for channels in backbone.feature_info.channels()]
