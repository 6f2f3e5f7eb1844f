"""A plain vision transformer on 16×16 patches of an image of any size, made of timm's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from segweave.backbones.positions import resized
from segweave.errors import MissingExtraError, UsageError
from segweave.registry import Size

PATCH = 16
"""Height and width of a patch, and the stride of the map."""


class PlainViT(nn.Module):
    """(B, C, H, W) → the tokens of the last block as a map (B, width, H / 16, W / 16).

    Dosovitskiy et al., An Image is Worth 16×16 Words, ICLR 2021; Touvron et al., Training
    data-efficient image transformers, ICML 2021 (DeiT). No class token. The tensors have
    timm's names.

    Args:
        in_channels: channels of an image.
        width: channels of a token.
        depth: number of blocks.
        heads: heads of the attention, a divisor of `width`.
        grid: rows and columns of the learned table of positions, which is interpolated for others;
            None: no positions.
        norm: whether a layer norm follows the last block.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: numbers below 1, or heads that do not divide `width`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int,
        depth: int,
        heads: int,
        grid: Size | None = None,
        norm: bool = True,
    ) -> None:
        super().__init__()
        doing = "creating a vision transformer"
        if min(width, depth, heads) < 1 or width % heads:
            raise UsageError(
                doing,
                expected="width, depth and heads of at least 1, and heads that divide width",
                found=f"width={width}, depth={depth}, heads={heads}",
            )
        try:
            from timm.models.vision_transformer import Block
        except ImportError as error:
            raise MissingExtraError(doing, library="timm", extra="zoo") from error
        layer_norm = partial(nn.LayerNorm, eps=1e-6)
        self.grid = grid
        self.pos_embed = (
            None if grid is None else nn.Parameter(torch.zeros(1, grid[0] * grid[1], width))
        )
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, width, PATCH, PATCH)})
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth))
        )
        self.norm: nn.Module = layer_norm(width) if norm else nn.Identity()
        self.apply(_start)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, width, H / 16, W / 16)."""
        x = self.patch_embed["proj"](x)
        size = (int(x.shape[-2]), int(x.shape[-1]))
        tokens = x.flatten(2).transpose(1, 2)
        if self.pos_embed is not None and self.grid is not None:
            tokens = tokens + resized(self.pos_embed, self.grid, size)
        tokens = self.norm(self.blocks(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a ViT or DeiT with a table of positions for this grid: without the rows of the
        class and distillation tokens, resized. Further tensors are left as they are.
        """
        result = dict(weights)
        table = result.get("pos_embed")
        if table is not None and self.grid is not None:
            side = int(table.shape[1] ** 0.5)
            result["pos_embed"] = resized(table[:, -side * side :], (side, side), self.grid)
        return result


def _start(module: nn.Module) -> None:
    """Start values of timm's ViT: truncated normal with sd 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
