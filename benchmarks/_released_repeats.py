"""The arithmetic of the released R2U-Net, and of DAE-Former's efficient attention, restated in our
own words as what ours is timed against. Tensors bear the released names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class R2UNet(nn.Module):
    """UNet of recurrent residual blocks, two recurrent steps; logits (the released sigmoid left
    out).
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        for i, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            self.add_module(f"RRCNN{i + 1}", _Residual(before, after))
        for i, after in enumerate(widths[:-1]):
            self.add_module(f"Up{i + 2}", _Up(2 * after, after))
            self.add_module(f"Up_RRCNN{i + 2}", _Residual(2 * after, after))
        self.Conv_1x1 = nn.Conv2d(width, classes, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level in range(1, 6):
            x = getattr(self, f"RRCNN{level}")(x if level == 1 else self.pool(x))
            skips.append(x)
        for level in range(5, 1, -1):
            x = torch.cat([skips[level - 2], getattr(self, f"Up{level}")(x)], dim=1)
            x = getattr(self, f"Up_RRCNN{level}")(x)
        return self.Conv_1x1(x)


class _Recurrent(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        for step in range(2):
            if step == 0:
                y = self.conv(x)
            y = self.conv(x + y)
        return y


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.RCNN = nn.Sequential(_Recurrent(after), _Recurrent(after))
        self.Conv_1x1 = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv_1x1(x)
        return x + self.RCNN(x)


class _Up(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(before, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class EfficientAttention(nn.Module):
    """DAE-Former's, with one head: (B, H, W, C) → the same. Tokens are brought to maps and back,
    and all products are taken in the order in which they are written.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("keys", "queries", "values", "reprojection"):
            self.add_module(name, nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        maps = x.permute(0, 3, 1, 2).contiguous()
        keys = self.keys(maps).flatten(2).softmax(dim=2)
        queries = self.queries(maps).flatten(2).softmax(dim=1)
        values = self.values(maps).flatten(2)
        context = keys @ values.transpose(1, 2)
        attended = (context.transpose(1, 2) @ queries).reshape(maps.shape)
        return self.reprojection(attended).permute(0, 2, 3, 1).contiguous()
