"""Tokens and an image that attend to each other, in both directions.

Kirillov et al., Segment Anything, ICCV 2023, Appendix A ("Lightweight mask decoder"); details as
the authors' code computes them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class CrossAttention(nn.Module):
    """Attention with `heads` heads on `inner` channels: queries (B, N, C), keys and values (B, M,
    C) → (B, N, C).
    """

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.output = nn.Linear(inner, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, C), (B, M, C), (B, M, C) → (B, N, C)."""
        mixed = functional.scaled_dot_product_attention(
            self._split(self.query(query)),
            self._split(self.key(key)),
            self._split(self.value(value)),
        )
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2).contiguous()


class Perceptron(nn.Module):
    """Linear layers of these widths, ReLU between them: (..., widths[0]) → (..., widths[-1])."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) → (..., widths[-1])."""
        for number, layer in enumerate(self.layers):
            x = layer(functional.relu(x) if number else x)
        return x


class Perceptrons(nn.Module):
    """`count` perceptrons of these widths, each for one of the tokens: (B, count, widths[0]) → (B,
    count, widths[-1]). The weights of all lie in one tensor per layer, (count, out, in).
    """

    def __init__(self, count: int, *widths: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in pairwise(widths):
            layers = [nn.Linear(before, after) for _ in range(count)]
            self.weights.append(nn.Parameter(torch.stack([one.weight.detach() for one in layers])))
            self.biases.append(nn.Parameter(torch.stack([one.bias.detach() for one in layers])))

    def forward(self, x: Tensor) -> Tensor:
        """(B, count, widths[0]) → (B, count, widths[-1])."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.relu(x) if number else x
            x = torch.einsum("bki,koi->bko", x, weight) + bias
        return x


class TwoWayBlock(nn.Module):
    """The tokens attend to each other, then to the image, pass a perceptron, and the image attends
    to them.

    The first block (`first`) starts from tokens that are their own positions: its self-attention
    adds neither positions nor its input.
    """

    def __init__(self, channels: int, heads: int, hidden: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.itself = CrossAttention(channels, channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.to_image = CrossAttention(channels, channels // 2, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Perceptron(channels, hidden, channels)
        self.norm3 = nn.LayerNorm(channels)
        self.from_image = CrossAttention(channels, channels // 2, heads)
        self.norm4 = nn.LayerNorm(channels)

    def forward(
        self, tokens: Tensor, image: Tensor, read: Tensor, start: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) and image (B, M, C) → both, changed.

        `read` (B, M, C) is what the tokens read of the image; `start` (B, N, C) and `places` (1, M,
        C) are the positions of tokens and image.
        """
        if self.first:
            tokens = self.itself(tokens, tokens, tokens)
        else:
            placed = tokens + start
            tokens = tokens + self.itself(placed, placed, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.to_image(tokens + start, read + places, read))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.from_image(image + places, tokens + start, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two-way blocks, then the tokens attend to the image once more."""

    def __init__(self, channels: int, heads: int, hidden: int, layers: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TwoWayBlock(channels, heads, hidden, first=number == 0) for number in range(layers)
        )
        self.last = CrossAttention(channels, channels // 2, heads)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, start: Tensor, image: Tensor, first_read: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C), image (B, M, C), the image as the tokens read it first (B, M, C), and
        the positions (1, M, C) of the image's places → tokens and image.
        """
        tokens, read = start, first_read
        for block in self.blocks:
            tokens, image = block(tokens, image, read, start, places)
            read = image
        tokens = tokens + self.last(tokens + start, image + places, image)
        return self.norm(tokens), image
