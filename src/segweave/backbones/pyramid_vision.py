"""The pyramid vision transformers that segmentation networks share: MiT (the encoder of SegFormer)
and PVTv2, which differ in the width of their MLPs only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.errors import MissingExtraError, UsageError, nearest


class _Variant(NamedTuple):
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    ratios: tuple[int, ...]
    timm: str | None


_SMALL, _LARGE = (32, 64, 160, 256), (64, 128, 320, 512)
_VARIANTS = {
    "mit_b0": _Variant((2, 2, 2, 2), _SMALL, (4, 4, 4, 4), None),
    "mit_b1": _Variant((2, 2, 2, 2), _LARGE, (4, 4, 4, 4), None),
    "mit_b2": _Variant((3, 4, 6, 3), _LARGE, (4, 4, 4, 4), None),
    "mit_b3": _Variant((3, 4, 18, 3), _LARGE, (4, 4, 4, 4), None),
    "mit_b4": _Variant((3, 8, 27, 3), _LARGE, (4, 4, 4, 4), None),
    "mit_b5": _Variant((3, 6, 40, 3), _LARGE, (4, 4, 4, 4), None),
    "pvt_v2_b0": _Variant((2, 2, 2, 2), _SMALL, (8, 8, 4, 4), "pvt_v2_b0"),
    "pvt_v2_b1": _Variant((2, 2, 2, 2), _LARGE, (8, 8, 4, 4), "pvt_v2_b1"),
    "pvt_v2_b2": _Variant((3, 4, 6, 3), _LARGE, (8, 8, 4, 4), "pvt_v2_b2"),
    "pvt_v2_b3": _Variant((3, 4, 18, 3), _LARGE, (8, 8, 4, 4), "pvt_v2_b3"),
    "pvt_v2_b4": _Variant((3, 8, 27, 3), _LARGE, (8, 8, 4, 4), "pvt_v2_b4"),
    "tiny": _Variant((1, 1, 1, 1), (8, 16, 20, 32), (2, 2, 2, 2), None),
}
STAGES = 4


def _own_part(kind: str, number: int) -> str:
    return f"{kind}{number}"


class PyramidVision(nn.Module):
    """Four stages at the strides 4, 8, 16 and 32 (Wang et al., PVT v2, 2022; Xie et al., SegFormer,
    NeurIPS 2021), computed by timm: (B, C, H, W) → four maps, from fine to coarse.

    Args:
        name: `mit_b0` to `mit_b5`, `pvt_v2_b0` to `pvt_v2_b4`, or `tiny`, for tests.
        in_channels: channels of an image.
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first one.

    Attributes:
        widths: channels of the four maps.
        timm_name: the timm model whose ImageNet weights fit, None where timm has none.

    Raises UsageError for an unknown name, MissingExtraError without timm.
    """

    def __init__(self, name: str, in_channels: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        doing = f"creating the backbone {name!r}"
        if name not in _VARIANTS:
            raise UsageError(doing, found=repr(name), remedy=nearest(name, _VARIANTS))
        try:
            from timm.models.pvt_v2 import PyramidVisionTransformerV2
        except ImportError as error:
            raise MissingExtraError(doing, library="timm", extra="zoo") from error
        variant = _VARIANTS[name]
        self.widths = variant.widths
        self.timm_name = variant.timm
        model: Any = PyramidVisionTransformerV2(
            in_chans=in_channels,
            num_classes=0,
            depths=variant.depths,
            embed_dims=variant.widths,
            num_heads=(1, 2, 5, 8),
            mlp_ratios=variant.ratios,
            drop_path_rate=drop_path,
        )
        self.patch_embed: nn.Module = model.patch_embed
        self.stages: nn.ModuleList = model.stages

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) → maps at the strides 4, 8, 16 and 32."""
        x = self.patch_embed(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def released_names(self) -> ReleasedNames:
        """Names of MiT's and PVTv2's own code: patch_embed1, block1, norm1, …"""
        return names_by_prefix(self, self.prefixes())

    def prefixes(self, part: Callable[[str, int], str] = _own_part) -> dict[str, str]:
        """Our prefixes → those of MiT's and PVTv2's own code. `part` names the parts
        ("patch_embed", "block" and "norm", with a number from 1 on) where a network calls them
        otherwise.
        """
        prefixes = {"patch_embed.": f"{part('patch_embed', 1)}."}
        for index, stage in enumerate(self.stages):
            ours, number = f"stages.{index}.", index + 1
            prefixes[f"{ours}downsample."] = f"{part('patch_embed', number)}."
            prefixes[f"{ours}norm."] = f"{part('norm', number)}."
            blocks: Any = stage.blocks
            for block in range(len(blocks)):
                mine, theirs = f"{ours}blocks.{block}.", f"{part('block', number)}.{block}."
                prefixes[mine] = theirs
                prefixes[f"{mine}mlp.dwconv."] = f"{theirs}mlp.dwconv.dwconv."
        return prefixes
