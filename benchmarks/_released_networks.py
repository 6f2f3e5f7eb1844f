"""The arithmetic of the released UNet and MT-UNet, restated in our own words as what ours is timed
against. Tensors bear the released names, so that one state dict fills both.

What the released MT-UNet does slowly is kept: axial attention is weighted by a double Python loop
over positions that builds its distances from lists, maps are copied between layouts, and the join
is computed on the padded map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class UNet(nn.Module):
    """Five levels of double convolutions; logits (the released sigmoid left out)."""

    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 32) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(5)]
        for i, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            self.add_module(f"conv{i + 1}", _UNetBlock(before, after))
        for i, after in enumerate(reversed(widths[:-1])):
            self.add_module(f"up{i + 6}", nn.ConvTranspose2d(2 * after, after, 2, stride=2))
            self.add_module(f"conv{i + 6}", _UNetBlock(2 * after, after))
        self.conv10 = nn.Conv2d(width, classes, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(1, 6):
            x = getattr(self, f"conv{level}")(x if level == 1 else self.pool(x))
            skips.append(x)
        for level in range(6, 10):
            up = getattr(self, f"up{level}")(x)
            x = getattr(self, f"conv{level}")(torch.cat([up, skips[9 - level]], dim=1))
        return self.conv10(x)


class _UNetBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class MTUNet(nn.Module):
    """MT-UNet for 224×224 (any `width`; released: 64)."""

    def __init__(self, classes: int = 4, width: int = 64) -> None:
        super().__init__()
        w = width
        self.stem = nn.Module()
        self.stem.model = nn.Module()
        for i, (before, after) in enumerate([(3, w), (w, 2 * w), (2 * w, 4 * w)]):
            self.stem.model.add_module(f"res{i + 1}", _ResidualBlock(before, after))
        self.stem.trans_dim = _Convolution(4 * w, 4 * w, 1)
        self.stem.position_embedding = nn.Parameter(torch.zeros(1, 784, 4 * w))
        self.encoder = nn.ModuleList()
        for channels in (4 * w, 8 * w):
            stage = nn.Module()
            stage.block = nn.ModuleList(
                [_Mixed(channels), _Mixed(channels), _Convolution(channels, 2 * channels, 2, 2)]
            )
            self.encoder.append(stage)
        self.bottleneck = nn.Sequential(_Mixed(16 * w), _Mixed(16 * w))
        first, second = nn.Module(), nn.Module()
        first.block = nn.ModuleList(
            [
                nn.ConvTranspose2d(16 * w, 8 * w, 2, stride=2),
                nn.Conv2d(16 * w, 8 * w, 1),
                _Mixed(8 * w),
                _Mixed(8 * w),
            ]
        )
        second.block = nn.ModuleList(
            [nn.ConvTranspose2d(8 * w, 4 * w, 2, stride=2), _Mixed(8 * w), _Mixed(8 * w)]
        )
        self.decoder = nn.ModuleList([first, second])
        self.decoder_stem = nn.Module()
        self.decoder_stem.block = nn.Module()
        for i, channels in enumerate([4 * w, 2 * w, w]):
            up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
            self.decoder_stem.block.add_module(f"trans{i + 1}", up)
            self.decoder_stem.block.add_module(
                f"res{i + 1}", _ResidualBlock(2 * channels, channels)
            )
        self.SegmentationHead = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.repeat(1, 3, 1, 1)
        shallow = []
        for i in range(3):
            x = getattr(self.stem.model, f"res{i + 1}")(x)
            shallow.append(x)
            x = functional.max_pool2d(x, 2)
        x = _tokens(self.stem.trans_dim(x)) + self.stem.position_embedding
        skips = []
        for stage in self.encoder:
            x = _map(stage.block[1](stage.block[0](x)))
            skips.append(x)
            x = _tokens(stage.block[2](x))
        x = _map(self.bottleneck(x))
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            up, *between = stage.block
            x = torch.cat([up(x), skip], dim=1)
            if len(between) == 3:
                x = between.pop(0)(x)
            x = _map(between[1](between[0](_tokens(x))))
        for i, skip in enumerate(reversed(shallow)):
            up = getattr(self.decoder_stem.block, f"trans{i + 1}")(x)
            x = getattr(self.decoder_stem.block, f"res{i + 1}")(torch.cat([skip, up], dim=1))
        return self.SegmentationHead(x)


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).contiguous()


def _map(tokens: Tensor) -> Tensor:
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, side, side)


class _Convolution(nn.Module):
    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        padding = 1 if kernel == 3 else 0
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return functional.relu(x) if self.relu else x


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _Convolution(before, after, 3), _Convolution(after, after, 3, relu=False)
        )
        self.conv1 = nn.Conv2d(after, after, 1)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return functional.relu(y + self.bn(self.conv1(y)))


class _Mixed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.SlayerNorm = nn.LayerNorm(channels, eps=1e-6)
        self.ElayerNorm = nn.LayerNorm(channels, eps=1e-6)
        self.CSAttention = _LocalGlobal(channels)
        self.EAttention = _External(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.CSAttention(self.SlayerNorm(x))
        return x + self.EAttention(self.ElayerNorm(x))


class _Projections(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_layer = nn.Linear(channels, channels)
        self.key_layer = nn.Linear(channels, channels)
        self.value_layer = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)


class _LocalGlobal(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.win_atten = nn.Module()
        self.win_atten.attention = _Projections(channels)
        self.dlightconv = nn.Module()
        self.dlightconv.linear = nn.Linear(channels, 16)
        self.global_atten = _Projections(channels)
        self.gaussiantrans = nn.Module()
        self.gaussiantrans.bias = nn.Parameter(-torch.randn(1).abs())
        self.gaussiantrans.shift = nn.Parameter(torch.randn(1).abs())
        self.queeze = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = _map(tokens).contiguous()
        side = x.shape[-1]
        if side % 4:
            padded = x.new_zeros(*x.shape[:2], side + -side % 4, side + -side % 4)
            padded[:, :, :side, :side] = x
            padded[:, :, side:, side:] = x[:, :, -(-side % 4) :, -(-side % 4) :]
            x = padded
        windows = self._windows(x)
        local = self._unwindowed(windows)
        weights = self.dlightconv.linear(windows.mean(dim=-2)).softmax(dim=-1)
        reduced = (windows * weights.unsqueeze(-1)).sum(dim=-2)
        spread = functional.interpolate(
            self._axial(reduced).permute(0, 3, 1, 2).contiguous(),
            scale_factor=4,
            mode="bilinear",
            align_corners=True,
        )
        joined = self.queeze(torch.cat([spread, local], dim=1))
        return _tokens(joined[:, :, :side, :side])

    def _windows(self, x: Tensor) -> Tensor:
        layers = self.win_atten.attention
        batch, channels, side, _ = x.shape
        windows = x.view(batch, channels, side // 4, 4, side // 4, 4).permute(0, 2, 4, 3, 5, 1)
        windows = windows.reshape(batch, side // 4, side // 4, 16, channels)

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (8, channels // 8)).transpose(3, 4).contiguous()

        query, key, value = (
            heads(layer(windows))
            for layer in (layers.query_layer, layers.key_layer, layers.value_layer)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(channels // 8)).softmax(dim=-1)
        return layers.out((weights @ value).transpose(3, 4).flatten(-2))

    @staticmethod
    def _unwindowed(windows: Tensor) -> Tensor:
        batch, count, _, _, channels = windows.shape
        x = windows.view(batch, count, count, 4, 4, channels).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(batch, channels, 4 * count, 4 * count)

    def _axial(self, x: Tensor) -> Tensor:
        layers, gauss = self.global_atten, self.gaussiantrans
        query, key, value = layers.query_layer(x), layers.key_layer(x), layers.value_layer(x)
        rows = query @ key.transpose(-1, -2)
        columns = query.transpose(1, 2) @ key.transpose(1, 2).transpose(-1, -2)
        result = torch.zeros_like(value)
        count = x.shape[1]
        for r in range(count):
            for c in range(count):
                to_c = torch.tensor([(i - c) ** 2 for i in range(count)], device=x.device)
                to_r = torch.tensor([(i - r) ** 2 for i in range(count)], device=x.device)
                row = (rows[:, r, c] - (gauss.shift * to_c + gauss.bias)).softmax(dim=-1)
                column = (columns[:, c, r] - (gauss.shift * to_r + gauss.bias)).softmax(dim=-1)
                along = row.unsqueeze(-1) * value[:, r] + column.unsqueeze(-1) * value[:, :, c]
                result[:, r, c] = along.sum(dim=1)
        return result


class _External(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_liner = nn.Linear(channels, 4 * channels)
        self.linear_0 = nn.Linear(channels // 8, 64)
        self.linear_1 = nn.Linear(64, channels // 8)
        self.proj = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.query_liner(x).unflatten(-1, (32, -1)).transpose(1, 2)
        weights = self.linear_0(heads).softmax(dim=-2)
        weights = weights / (1e-9 + weights.sum(dim=-1, keepdim=True))
        return self.proj(self.linear_1(weights).transpose(1, 2).flatten(-2))
