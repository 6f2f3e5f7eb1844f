"""Stacks of Swin blocks that start from the stages of a published Swin transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segweave.backbones.positions import resized
from segweave.backbones.swin import SwinBlock
from segweave.blocks.mlp import start_linear

_HEAD = 32
"""Channels per head, as in Swin; a narrower map has one head."""


class SwinStacks(nn.Module):
    """`stacks[i]` runs `depth` Swin blocks on a map (B, H, W, C_i), every second one shifted.

    The weights of a timm `swin_*` model fit each stack whose width a stage of it has: block j takes
    the stage's block j, and where the stage ends it starts again. A table of position biases of
    another window is interpolated (bilinear, aligned corners).

    Args:
        channels: C_i.
        depth: number of blocks in a stack.
        window: side of the windows.
    """

    def __init__(self, channels: Sequence[int], *, depth: int, window: int) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(
            nn.Sequential(
                *(
                    SwinBlock(width, max(1, width // _HEAD), shifted=bool(j % 2), window=window)
                    for j in range(depth)
                )
            )
            for width in channels
        )
        self.apply(start_linear)

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Timm's weights, and under our names those that our stacks take from them."""
        widths = {
            int(tensor.shape[0]): name.removesuffix(".blocks.0.norm1.weight")
            for name, tensor in weights.items()
            if name.endswith(".blocks.0.norm1.weight")
        }
        result = dict(weights)
        for name, own in self.state_dict().items():
            _, stack, block, rest = name.split(".", 3)
            stage = widths.get(int(self.get_parameter(f"stacks.{stack}.0.norm1.weight").shape[0]))
            depth = sum(f"{stage}.blocks.{j}.norm1.weight" in weights for j in range(100))
            if stage is None or depth == 0:
                continue
            source = f"{stage}.blocks.{int(block) % depth}.{rest}"
            if source in weights:
                tensor = weights[source]
                is_table = rest.endswith("bias_table")
                result[name] = _resized(tensor, len(own)) if is_table else tensor
                result.pop(source, None)
        return result


def _resized(table: Tensor, length: int) -> Tensor:
    """A table of position biases (sides², heads) → (length, heads)."""
    old, new = round(len(table) ** 0.5), round(length**0.5)
    return resized(table[None], (old, old), (new, new))[0]
