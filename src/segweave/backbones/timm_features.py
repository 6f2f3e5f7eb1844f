"""A timm backbone that returns its feature maps."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from segweave.errors import MissingExtraError, UsageError
from segweave.registry import Size


def timm_features(
    name: str, in_channels: int, options: dict[str, Any] | None = None
) -> tuple[nn.Module, tuple[Size, ...]]:
    """A timm backbone without pretrained weights that returns its feature maps, from fine to
    coarse, and the only sizes that it takes.

    Args:
        name: a timm name.
        in_channels: channels of an image; timm adapts the first convolution.
        options: further options of `timm.create_model`.

    Raises MissingExtraError without timm, UsageError for an unknown name, with the nearest, and for
    options that timm does not take.
    """
    options = options or {}
    doing = f"creating the backbone {name!r}"
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(doing, library="timm", extra="zoo") from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), cutoff=0.7)
        raise UsageError(
            doing,
            found=f"{name!r}, which timm does not know",
            remedy="did you mean " + " or ".join(close) + "?"
            if close
            else "see timm.list_models()",
        )
    try:
        backbone = timm.create_model(
            name, features_only=True, pretrained=False, in_chans=in_channels, **options
        )
    except (TypeError, RuntimeError, AssertionError, IndexError) as error:
        raise UsageError(
            f"{doing}: {error}",
            expected="a backbone that returns feature maps, and options that timm takes",
            found=f"encoder_options={options}" if options else "default options",
            remedy="take a hierarchical backbone, such as resnet34 or pvt_v2_b2",
        ) from error
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return backbone, ()
    if options.get("dynamic_img_size") or options.get("strict_img_size") is False:
        return backbone, ()
    size = options.get("img_size", config.input_size[1:])
    return backbone, ((size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),)
