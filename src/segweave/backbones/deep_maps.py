"""The maps of a ResNet-like backbone: the three deepest ones, which the polyp networks read, or
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from segweave.backbones.timm_features import timm_features
from segweave.errors import UsageError

RES2NET = "res2net50d"
"""timm's name of Res2Net-50 v1b with 26 channels times 4 scales; the tensors have the authors'
names.
"""

FIVE_LEVELS = (0, 1, 2, 3, 4)
"""All levels: the stem before its pooling, at stride 2, and the four layers."""


def deep_maps(
    encoder: str,
    in_channels: int,
    options: Mapping[str, Any] | None = None,
    *,
    levels: tuple[int, ...] = (2, 3, 4),
) -> tuple[nn.Module, tuple[int, ...]]:
    """A timm backbone that returns its maps at the strides 8, 16 and 32, and their channels.

    Args:
        encoder: a timm name.
        in_channels: channels of an image.
        options: further options of `timm.create_model`.
        levels: which maps, level k at the stride 2^(k + 1). What lies behind the last one is left
            out.

    Raises MissingExtraError without timm, UsageError for a backbone without such maps.
    """
    backbone, _ = timm_features(
        encoder, in_channels, {"out_indices": levels, **dict(options or {})}
    )
    found: Any = backbone.feature_info
    if list(found.reduction()) != [2 ** (level + 1) for level in levels]:
        raise UsageError(
            f"creating the backbone {encoder!r}",
            expected="a backbone with five levels, such as a ResNet, the last at stride 32",
            found=f"strides {found.reduction()}",
        )
    return backbone, tuple(int(channels) for channels in found.channels())
