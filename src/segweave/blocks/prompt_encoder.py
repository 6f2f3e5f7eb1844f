"""What a user points out in an image, as tokens and as a map: boxes, points and a rough mask.

Kirillov et al., Segment Anything, ICCV 2023, Section 3 and Appendix A ("Prompt encoder"); details
as the authors' code computes them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from segweave.blocks.channel_norm import ChannelNorm
from segweave.registry import Size

MASK_STRIDE = 4
"""A mask prompt has the size of the image divided by this."""


class PromptEncoder(nn.Module):
    """Boxes, points and masks → tokens (B, N, C) and a map (B, C, h, w).

    A place is encoded by random frequencies: its coordinates, scaled to -1..1, times a fixed random
    matrix, then sine and cosine. Learned vectors say what the place is: a background point, a
    foreground point, the first and the second corner of a box.

    Args:
        channels: C, an even number.
        mask_channels: channels of the mask before the last convolution, divisible by 4.
    """

    frequencies: Tensor

    def __init__(self, channels: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, channels // 2))
        self.kinds = nn.ParameterList(nn.Parameter(torch.randn(1, channels)) for _ in range(4))
        self.no_point = nn.Parameter(torch.randn(1, channels))
        self.no_mask = nn.Parameter(torch.randn(1, channels))
        self.mask = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            ChannelNorm(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            ChannelNorm(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )

    def encode(self, places: Tensor, size: Size) -> Tensor:
        """Places (..., 2), x and y in pixels from the left and upper edge of an image of `size`
        (height, width) → (..., C).
        """
        scaled = 2 * places / places.new_tensor([size[1], size[0]]) - 1
        # Not a matrix product: autocast would round the coordinates to half precision.
        waves = scaled[..., :1] * self.frequencies[0] + scaled[..., 1:] * self.frequencies[1]
        waves = 2 * math.pi * waves
        return torch.cat([waves.sin(), waves.cos()], -1)

    def grid(self, height: int, width: int) -> Tensor:
        """The encoding (1, C, height, width) of the centres of a map's pixels."""
        places = self.frequencies.new_empty(height, width, 2)
        places[..., 0] = torch.arange(width) + 0.5
        places[..., 1] = torch.arange(height)[:, None] + 0.5
        return self.encode(places, (height, width)).permute(2, 0, 1)[None]

    def tokens(
        self,
        size: Size,
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
    ) -> Tensor:
        """The tokens (B, N, C): points first, then the two corners of the box.

        Args:
            size: height and width of the image.
            boxes: (B, 4): x0, y0, x1, y1.
            points: (B, P, 2): x and y of points. Without a box, one more token says that no point
                follows.
            point_labels: (B, P): 1 for a point of the object, 0 for one of the background.
        """
        parts = []
        if points is not None and point_labels is not None:
            kind = torch.where(point_labels[..., None] > 0, self.kinds[1], self.kinds[0])
            parts.append(self.encode(points + 0.5, size) + kind)
            if boxes is None:
                parts.append(self.no_point.expand(len(points), 1, -1))
        if boxes is not None:
            corners = self.encode(boxes.reshape(-1, 2, 2) + 0.5, size)
            parts.append(corners + torch.cat([self.kinds[2], self.kinds[3]]))
        return torch.cat(parts, 1)

    def map(self, mask: Tensor | None, batch: int, size: Size) -> Tensor:
        """A mask prompt (B, 1, H / 4, W / 4) of logits, or none → (B, C, h, w) of `size`."""
        if mask is None:
            return self.no_mask[..., None, None].expand(batch, -1, *size)
        encoded: Tensor = self.mask(mask)
        return encoded
