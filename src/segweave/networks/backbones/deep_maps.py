"""The three deepest maps of a ResNet-like backbone, which the polyp networks read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from segweave.errors import UsageError
from segweave.networks.backbones.timm_features import timm_features

RES2NET = "res2net50d"
"""timm's name of Res2Net-50 v1b with 26 channels times 4 scales; the tensors have the authors'
names.
"""


def deep_maps(
    encoder: str, in_channels: int, options: Mapping[str, Any] | None = None
) -> tuple[nn.Module, tuple[int, int, int]]:
    """A timm backbone that returns its maps at the strides 8, 16 and 32, and their channels.

    Args:
        encoder: a timm name.
        in_channels: channels of an image.
        options: further options of `timm.create_model`.

    Raises MissingExtraError without timm, UsageError for a backbone without such maps.
    """
    backbone, _ = timm_features(
        encoder, in_channels, {"out_indices": (2, 3, 4), **dict(options or {})}
    )
    levels: Any = backbone.feature_info
    if list(levels.reduction()) != [8, 16, 32]:
        raise UsageError(
            f"creating the backbone {encoder!r}",
            expected="a backbone with five levels, such as a ResNet, the last at stride 32",
            found=f"strides {levels.reduction()}",
        )
    fine, middle, coarse = (int(channels) for channels in levels.channels())
    return backbone, (fine, middle, coarse)
