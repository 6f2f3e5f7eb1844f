"""The stages of a ResNet as the networks use them that join it with a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from segweave.backbones.timm_features import timm_features
from segweave.errors import UsageError

RESNET34 = "resnet34.tv_in1k"
"""timm's name of ResNet-34 with the weights of torchvision."""
RESNET50 = "resnet50.tv_in1k"
"""timm's name of ResNet-50 with the first weights of torchvision."""


def resnet_stages(
    encoder: str,
    in_channels: int,
    options: Mapping[str, Any] | None = None,
    *,
    levels: Sequence[int],
    pooling: bool = True,
    dropout: float = 0.0,
) -> tuple[nn.Module, tuple[int, ...]]:
    """A ResNet of timm that returns the maps of some of its levels, and their channels.

    Args:
        encoder: a timm name.
        in_channels: channels of an image; timm adapts the first convolution.
        options: further options of `timm.create_model`.
        levels: consecutive levels: 0 the stem at stride 2, 1 to 4 the stages at strides 4 to 32.
            Stages behind the last one are left out.
        pooling: whether the max pooling behind the stem is kept; without it each stage has half of
            its stride.
        dropout: rate at which whole channels of a stage's map are dropped in training; the next
            stage reads the dropped map too.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a backbone that is not built like a ResNet.
    """
    backbone, _ = timm_features(
        encoder, in_channels, {"out_indices": tuple(levels), **dict(options or {})}
    )
    parts: Any = backbone
    stages: list[Any] = [getattr(backbone, f"layer{level}", None) for level in levels if level]
    strides = [2 ** (level + 1) for level in levels]
    info = parts.feature_info
    if list(info.reduction()) != strides or not all(
        isinstance(stage, nn.Sequential) for stage in stages
    ):
        raise UsageError(
            f"creating the backbone {encoder!r}",
            expected="a ResNet with five levels, such as resnet34",
            found=f"{type(backbone).__name__} with strides {info.reduction()}",
        )
    if dropout:
        for stage in stages:
            stage.append(nn.Dropout2d(dropout))
    if not pooling:
        parts.maxpool = nn.Identity()
    return backbone, tuple(int(channels) for channels in info.channels())
