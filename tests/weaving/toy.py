"""A user's own network that follows the contract without deriving from anything of ours, and
context modules small enough to reason about.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context.base import ContextModule
from segweave.networks.base import Decoded, Features, Feedback, Output, SegmentationNetwork


class ToyNetwork(nn.Module):
    """Two levels, batch norm, an auxiliary output, and counters of what ran."""

    def __init__(self, in_channels: int = 1, classes: int = 2, width: int = 4) -> None:
        super().__init__()
        self.in_channels, self.classes, self.stride = in_channels, classes, 2
        self.channels = {
            "skips": (width,),
            "bottleneck": (2 * width,),
            "decoder": (width,),
            "output": (classes,),
        }
        self.shallow = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2), nn.BatchNorm2d(2 * width)
        )
        self.up = nn.Conv2d(3 * width, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, classes, 1)
        self.calls = {"encode": 0, "decode": 0, "head": 0}

    def encode(self, x: Tensor) -> Features:
        self.calls["encode"] += 1
        skip = self.shallow(x)
        return Features(skips=(skip,), bottleneck=self.deep(skip), extra={})

    def decode(self, features: Features) -> Decoded:
        self.calls["decode"] += 1
        skip = features.skips[0]
        deep = F.interpolate(features.bottleneck, size=skip.shape[-2:])
        return Decoded(torch.relu(self.up(torch.cat([skip, deep], 1))), features.extra)

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        self.calls["head"] += 1
        logits = self.classifier(decoded.map)
        return Output(logits, {"inner": decoded.map} if auxiliary else {})

    def forward(self, x: Tensor, *, auxiliary: bool | None = None) -> Output:
        wanted = self.training if auxiliary is None else auxiliary
        return self.head(self.decode(self.encode(x)), (x.shape[-2], x.shape[-1]), wanted)


class FeedbackNetwork(SegmentationNetwork):
    """Reads its earlier mask beside the image."""

    def __init__(self, rounds: int = 2) -> None:
        super().__init__()
        self.in_channels, self.classes, self.stride, self.divisor = 1, 1, 2, 2
        self.channels = {"skips": (4,), "bottleneck": (4,), "decoder": (8,), "output": (1,)}
        self.feedback = Feedback("mask", lambda image: (image > 0.5).to(image.dtype), rounds)
        self.shallow = nn.Conv2d(2, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, stride=2)
        self.classifier = nn.Conv2d(8, 1, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        skip = self.shallow(torch.cat([x, inputs["mask"]], 1)).relu()
        return Features(skips=(skip,), bottleneck=self.deep(skip), extra={})

    def decode(self, features: Features) -> Decoded:
        deep = F.interpolate(features.bottleneck, size=features.skips[0].shape[-2:])
        return Decoded(torch.cat([features.skips[0], deep], 1), {})

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        return Output(self.classifier(decoded.map), {})


class InPlace(nn.Module):
    """A plain network whose layers change their input in place, each behind the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.BatchNorm2d(4), AddInPlace(4), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.body(self.conv(x)))
        return logits


class AddInPlace(nn.Module):
    """Adds a learned number per channel, written into the map that it reads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(self.shift)


class Weighted(ContextModule):
    """Σ (t + 1) · weight · step, so that order, length and missing steps show."""

    def __init__(self, channels: int, out_channels: int | None = None, both_sides: bool = True):
        super().__init__()
        self.channels, self.both_sides = channels, both_sides
        self.out_channels = out_channels or channels
        self.conv = nn.Conv2d(channels, self.out_channels, 3, padding=1)

    def prepare(self, step: Tensor) -> dict[str, Tensor]:
        return {"convolved": self.conv(step)}

    def fuse(self, prepared) -> Tensor:
        return torch.stack([(t + 1) * p["convolved"] for t, p in enumerate(prepared)]).sum(0)


def one_sided(channels: int) -> Weighted:
    return Weighted(channels, both_sides=False)


def settle(network: nn.Module) -> nn.Module:
    """Running statistics away from their start values, float64, eval mode."""
    network.double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()
