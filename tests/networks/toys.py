"""Networks as small as they can be that have the shapes of the published ones that fit the contract
least. They run through the contract test as every registered network does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.networks import Decoded, Features, Feedback, Output, SegmentationNetwork
from segweave.registry import NetworkCard

CARDS = (
    NetworkCard(
        name="toy-fixed",
        title="A position table for one size, as in TransUNet and Swin-Unet",
        entry="FixedSize",
        divisor=32,
        smallest=224,
        fixed=(224,),
    ),
    NetworkCard(
        name="toy-two-sizes",
        title="Two sizes, one of them not square, as in TransFuse",
        entry="FixedSize",
        options={"sizes": ((32, 64), (64, 64))},
        divisor=32,
        smallest=32,
        fixed=((32, 64), 64),
    ),
    NetworkCard(
        name="toy-bridge",
        title="Tokens of all scales in one sequence, as in MISSFormer",
        entry="TokenBridge",
        divisor=8,
        smallest=16,
        positions={
            "skips": "the encoder's maps before the bridge",
            "bottleneck": "the encoder's last map before the bridge",
        },
    ),
    NetworkCard(
        name="toy-reverse",
        title="A cascade of one-channel maps, as in PraNet",
        entry="ReverseAttention",
        divisor=8,
        smallest=8,
        positions={"decoder": "the map that the last convolution turns into logits"},
    ),
    NetworkCard(
        name="toy-feedback",
        title="Reads its earlier mask in encoder and head, as FANet",
        entry="MaskReader",
        divisor=2,
        smallest=4,
    ),
    NetworkCard(
        name="toy-centre",
        title="A branch at full size beside the encoder, as in FCBFormer",
        entry="CentreBranch",
        divisor=4,
        smallest=8,
    ),
    NetworkCard(
        name="toy-deep",
        title="Two deep outputs and a boundary of several channels, as in HarDNet-DFUS",
        entry="DeepSupervision",
        divisor=4,
        smallest=8,
        unfolded=(1, "a ReLU between convolution and batch norm, as in DCSAU-Net"),
    ),
    NetworkCard(
        name="toy-cascade",
        title="Two backbones one after the other with four outputs, as in MERIT",
        entry="Cascade",
        divisor=8,
        smallest=16,
        positions={
            "bottleneck": "that of the first backbone; the second one runs for the centre alone",
            "decoder": "the last map of the second decoder",
        },
    ),
)


def resized(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class FixedSize(SegmentationNetwork):
    """Stride 32 in one step, plus a learned table of the largest grid."""

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        sizes: tuple[tuple[int, int], ...] = ((224, 224),),
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = 32
        self.smallest = min(side for size in sizes for side in size)
        self.fixed = tuple(h if h == w else (h, w) for h, w in sizes)
        self.channels = {"skips": (), "bottleneck": (4,), "decoder": (4,), "output": (classes,)}
        self.embedding = nn.Conv2d(in_channels, 4, 32, stride=32)
        largest = (max(h for h, _ in sizes) // 32, max(w for _, w in sizes) // 32)
        self.table = nn.Parameter(torch.randn(4, *largest))
        self.mix = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Conv2d(4, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        x = self.embedding(x)
        x = x + self.table[:, : x.shape[-2], : x.shape[-1]]
        return Features(skips=(), bottleneck=x, extra={})

    def decode(self, features: Features) -> Decoded:
        return Decoded(map=self.mix(features.bottleneck).relu(), extra={})

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        return Output(resized(self.classifier(decoded.map), size), {})


class Pyramid(nn.Module):
    """Maps of `widths` at strides 2, 4, 8 ..."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            ConvNorm(before, after, 3, stride=2, activation=nn.GELU)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class TokenBridge(SegmentationNetwork):
    """All scales as one sequence of tokens of width 4: a token of 8 channels becomes two."""

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        widths = (4, 8, 12)
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.divisor, self.smallest = 8, 8, 16
        self.channels = {
            "skips": widths[:-1],
            "bottleneck": widths[-1:],
            "decoder": (4,),
            "output": (classes,),
        }
        self.encoder = Pyramid(in_channels, widths)
        self.bridge = nn.MultiheadAttention(4, 2, batch_first=True)
        self.joins = nn.ModuleList(ConvNorm(a, b, 1) for a, b in ((20, 8), (12, 4)))
        self.classifier = nn.Conv2d(4, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoder(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        # The bridge reads what weaving made of every scale; neighbours do not pay for it.
        maps = [*features.skips, features.bottleneck]
        tokens = [one.flatten(2).transpose(1, 2).reshape(one.shape[0], -1, 4) for one in maps]
        sequence = torch.cat(tokens, 1)
        sequence = sequence + self.bridge(sequence, sequence, sequence, need_weights=False)[0]
        parts = sequence.split([token.shape[1] for token in tokens], 1)
        *skips, x = (
            part.reshape(one.shape[0], -1, one.shape[1]).transpose(1, 2).reshape(one.shape)
            for part, one in zip(parts, maps, strict=True)
        )
        for join, skip in zip(self.joins, reversed(skips), strict=True):
            x = join(torch.cat([resized(x, skip.shape[-2:]), skip], 1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        return Output(resized(self.classifier(decoded.map), size), {})


class ReverseAttention(SegmentationNetwork):
    """A global map, refined at two scales; the last refinement is the head."""

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 8
        self.channels = {
            "skips": (4, 8),
            "bottleneck": (8,),
            "decoder": (4,),
            "output": (classes,),
        }
        self.encoder = Pyramid(in_channels, (4, 8, 8))
        self.whole = nn.Conv2d(8, classes, 1)
        self.deep = ConvNorm(8, classes, 3)
        self.shallow = ConvNorm(4, 4, 3, activation=relu)
        self.classifier = ConvNorm(4, classes, 3)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        shallow, deep, bottleneck = self.encoder(x)
        return Features(skips=(shallow, deep), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        shallow, deep = features.skips
        whole = self.whole(features.bottleneck)
        above = resized(whole, deep.shape[-2:])
        above = self.deep(deep * (1 - above.sigmoid().amax(1, keepdim=True))) + above
        below = resized(above, shallow.shape[-2:])
        x = self.shallow(shallow * (1 - below.sigmoid().amax(1, keepdim=True)))
        return Decoded(map=x, extra={"whole": whole, "deep": above, "below": below})

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        logits = self.classifier(decoded.map) + decoded.extra["below"]
        names = ("whole", "deep") if auxiliary else ()
        return Output(
            resized(logits, size), {name: resized(decoded.extra[name], size) for name in names}
        )


def brighter_than_the_mean(image: Tensor) -> Tensor:
    grey = image.mean(1, keepdim=True)
    return (grey > grey.mean((-2, -1), keepdim=True)).to(image.dtype)


class MaskReader(SegmentationNetwork):
    """The mask selects features in the encoder and is one more channel before the head."""

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.divisor, self.smallest = 2, 2, 4
        self.feedback = Feedback("mask", brighter_than_the_mean, rounds=3)
        self.channels = {
            "skips": (4,),
            "bottleneck": (8,),
            "decoder": (4,),
            "output": (classes,),
        }
        self.shallow = ConvNorm(in_channels, 4, 3, activation=relu)
        self.deep = ConvNorm(8, 8, 3, stride=2, activation=nn.GELU)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.join = ConvNorm(8, 4, 3, activation=relu)
        self.classifier = nn.Conv2d(5, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        skip = self.shallow(x)
        deep = self.deep(torch.cat([skip, skip * inputs["mask"]], 1))
        return Features(skips=(skip,), bottleneck=deep, extra={"mask": inputs["mask"]})

    def decode(self, features: Features) -> Decoded:
        x = self.join(torch.cat([self.up(features.bottleneck), features.skips[0]], 1))
        return Decoded(map=x, extra=features.extra)

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        joined = torch.cat([decoded.map, decoded.extra["mask"]], 1)
        return Output(self.classifier(joined), {})


class CentreBranch(SegmentationNetwork):
    """`decode` runs a branch on the image itself, which neighbours do not pay for."""

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.divisor, self.smallest = 4, 4, 8
        self.channels = {
            "skips": (4,),
            "bottleneck": (8,),
            "decoder": (8,),
            "output": (classes,),
        }
        self.encoder = Pyramid(in_channels, (4, 8))
        self.join = ConvNorm(12, 4, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU()
        )
        self.last = nn.Conv2d(8, classes, 3, padding=1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        skip, bottleneck = self.encoder(x)
        return Features(skips=(skip,), bottleneck=bottleneck, extra={"image": x})

    def decode(self, features: Features) -> Decoded:
        image, skip = features.extra["image"], features.skips[0]
        deep = self.join(torch.cat([resized(features.bottleneck, skip.shape[-2:]), skip], 1))
        return Decoded(
            map=torch.cat([resized(deep, image.shape[-2:]), self.branch(image)], 1), extra={}
        )

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        return Output(self.last(decoded.map), {})


class DeepSupervision(SegmentationNetwork):
    """Auxiliary heads on inner maps, one of them with more channels than classes, and a vector for
    the whole image (as TGANet has).
    """

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.divisor, self.smallest = 4, 4, 8
        self.channels = {
            "skips": (4,),
            "bottleneck": (8,),
            "decoder": (4,),
            "output": (classes,),
        }
        self.shallow = ConvNorm(in_channels, 4, 3, stride=2, activation=relu)
        self.deep = nn.Sequential(
            nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.BatchNorm2d(8)
        )
        self.join = ConvNorm(12, 4, 3, activation=relu)
        self.classifier = nn.Conv2d(4, classes, 1)
        self.deep_classifier = nn.Conv2d(8, classes, 1)
        self.boundary = nn.Conv2d(4, 6, 1)
        self.size_classifier = nn.Linear(8, 3)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        skip = self.shallow(x)
        return Features(skips=(skip,), bottleneck=self.deep(skip), extra={})

    def decode(self, features: Features) -> Decoded:
        skip, deep = features.skips[0], features.bottleneck
        x = self.join(torch.cat([resized(deep, skip.shape[-2:]), skip], 1))
        return Decoded(map=x, extra={"deep": deep, "skip": skip})

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        outputs = {}
        if auxiliary:
            deep, skip = decoded.extra["deep"], decoded.extra["skip"]
            outputs = {
                "deep": resized(self.deep_classifier(deep), size),
                "boundary": resized(self.boundary(skip), size),
                "size": self.size_classifier(deep.mean((-2, -1))),
            }
        return Output(resized(self.classifier(decoded.map), size), outputs)


class Cascade(SegmentationNetwork):
    """The first network's map steers the second one, which sees the image at seven eighths of its
    size; each decoder has two heads, and the logits are the sum of all four.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.divisor, self.smallest = 8, 8, 16
        self.channels = {
            "skips": (4, 4),
            "bottleneck": (8,),
            "decoder": (4,),
            "output": (classes,),
        }
        self.encoders = nn.ModuleList(Pyramid(in_channels, (4, 4, 8)) for _ in range(2))
        self.decoders = nn.ModuleList(
            nn.ModuleList(ConvNorm(a, 4, 3, activation=relu) for a in (12, 8)) for _ in range(2)
        )
        self.heads = nn.ModuleList(nn.Conv2d(4, classes, 1) for _ in range(4))

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoders[0](x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={"image": x})

    def decode(self, features: Features) -> Decoded:
        image = features.extra["image"]
        deep, shallow = self._decoded(0, features.skips, features.bottleneck)
        extra = {"p1": self.heads[0](deep), "p2": self.heads[1](shallow)}
        steered = image * resized(extra["p2"], image.shape[-2:]).sigmoid().amax(1, keepdim=True)
        smaller = resized(steered, (image.shape[-2] // 8 * 7, image.shape[-1] // 8 * 7))
        *skips, bottleneck = self.encoders[1](smaller)
        deep, shallow = self._decoded(1, tuple(skips), bottleneck)
        extra["p3"] = self.heads[2](deep)
        return Decoded(map=shallow, extra=extra)

    def _decoded(self, index: int, skips: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for block, skip in zip(self.decoders[index], reversed(skips), strict=True):
            x = block(torch.cat([resized(x, skip.shape[-2:]), skip], 1))
            maps.append(x)
        return maps[0], maps[1]

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        every = {**decoded.extra, "p4": self.heads[3](decoded.map)}
        every = {name: resized(one, size) for name, one in sorted(every.items())}
        return Output(torch.stack(list(every.values())).sum(0), every if auxiliary else {})
