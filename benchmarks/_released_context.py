"""The arithmetic of the three released context modules, restated in our own words as what ours is
timed against. Tensors bear the released names, so that one state dict fills both.

As in the released code, every step of every direction, the one from zero states included, is one
convolution of [input, h] for all four gates, and states start as tensors of zeros.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """Previous, current and next map, read in two directions; `kind` is the name of the module."""

    def __init__(self, kind: str, channels: int, kernel: int, classes: int, size: int) -> None:
        super().__init__()
        one_way = {"sa-lstm": SALSTM, "lstm-sa": LSTMSA, "sa-embedded-lstm": Embedded}[kind]
        self.forward_net = one_way(channels, kernel, size)
        self.reverse_net = one_way(channels, kernel, size)
        self.conv = nn.Conv2d(2 * channels, classes, 1)

    def forward(self, sequence: Tensor) -> Tensor:
        previous, current, following = sequence.unbind(1)
        forward = self.forward_net([previous, current])
        reverse = self.reverse_net([following, current])
        return self.conv(torch.cat([forward, reverse], dim=1))


def attend(query: Tensor, key: Tensor, value: Tensor, size: int) -> Tensor:
    """Channels attend to channels."""
    batch, channels, height, width = value.shape
    query, key, value = (m.view(batch, channels, -1) for m in (query, key, value))
    energy = torch.bmm(query, key.transpose(1, 2))
    weights = torch.softmax(energy / math.sqrt(size), dim=-1)
    return torch.bmm(weights, value).view(batch, channels, height, width)


class Cell(nn.Module):
    """The convolution of all gates."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(2 * channels, 4 * channels, kernel, padding=(kernel - 1) // 2)

    def gates(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i, f, o, g = torch.split(self.conv(torch.cat([x, h], dim=1)), self.channels, dim=1)
        return torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o), torch.tanh(g)


class SALSTM(nn.Module):
    """LSTM over the steps, then attention of (c + f) / 2, (g + h) / 2 and h."""

    def __init__(self, channels: int, kernel: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.cell0 = Cell(channels, kernel)

    def forward(self, steps: list[Tensor]) -> Tensor:
        h = torch.zeros_like(steps[0])
        c = torch.zeros_like(steps[0])
        for x in steps:
            i, f, o, g = self.cell0.gates(x, h)
            c = f * c + i * g
            h = o * torch.tanh(c)
        return self.read((c + f) / 2, (g + h) / 2, h)

    def read(self, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return attend(a, b, h, self.size)


class LSTMSA(SALSTM):
    """The same states as coefficients of three linear maps of h."""

    def __init__(self, channels: int, kernel: int, size: int) -> None:
        super().__init__(channels, kernel, size)
        self.attention = nn.Module()
        for name in ("q_matrix", "k_matrix", "v_matrix"):
            self.attention.add_module(name, nn.Linear(channels, channels))

    def read(self, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        last = h.permute(0, 2, 3, 1)
        q, k, v = (
            matrix(last).permute(0, 3, 1, 2)
            for matrix in (
                self.attention.q_matrix,
                self.attention.k_matrix,
                self.attention.v_matrix,
            )
        )
        return attend(a * q, b * k, h * v, self.size)


class EmbeddedCell(Cell):
    """A step with attention, fusion and position code before the gates."""

    def __init__(self, channels: int, kernel: int, size: int) -> None:
        super().__init__(channels, kernel)
        self.size = size
        self.fusion = nn.Module()
        self.fusion.linear = nn.Linear(2 * channels, channels)
        self.dropout = nn.Dropout(0.1)
        place = torch.arange(size, dtype=torch.float32)[:, None]
        # Rounded as on the machine that made the reference numbers (see docs/fidelity.md).
        exponent = torch.arange(0, channels, 2).float() * (-math.log(10000.0) / channels)
        rate = (exponent.double().exp() * (1 + 2.0**-31)).float()
        table = torch.zeros(1, size, channels)
        table[0, :, 0::2] = torch.sin(place * rate)
        table[0, :, 1::2] = torch.cos(place * rate)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = x.shape
        attended = attend(x, h, x, self.size)
        joined = torch.cat([h, attended], dim=1).permute(0, 2, 3, 1)
        fused = torch.relu(self.fusion.linear(joined)).view(batch, height * width, channels)
        coded = self.dropout(fused + self.table[:, : height * width])
        s = torch.sigmoid(coded).view(batch, height, width, channels).permute(0, 3, 1, 2)
        i, f, o, g = self.gates(x, h)
        c = f * c + s
        return c, o * torch.tanh(c) + i * g + s


class Embedded(nn.Module):
    """The cell over the steps."""

    def __init__(self, channels: int, kernel: int, size: int) -> None:
        super().__init__()
        self.cell0 = EmbeddedCell(channels, kernel, size)

    def forward(self, steps: list[Tensor]) -> Tensor:
        c = h = torch.zeros_like(steps[0])
        for x in steps:
            c, h = self.cell0(x, c, h)
        return h
