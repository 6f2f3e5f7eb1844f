"""HarDNet-DFUS: KingNet-53 and a decoder of large-window attention, with a boundary branch."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.kingnet import KingNet
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.fusion import LateFusion, PixelLinear
from segweave.blocks.large_window import WINDOW, LargeWindowAttention
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

RATIOS = (8, 4, 2)

CARD = NetworkCard(
    name="hardnet-dfus",
    title="HarDNet-DFUS (KingNet-53, large-window attention)",
    entry="HarDNetDFUS",
    paper="Liao et al., HarDNet-DFUS: An Enhanced Harmonically-Connected Network for Diabetic Foot "
    "Ulcer Image Segmentation and Colonoscopy Polyp Segmentation, arXiv:2209.07313",
    licence="none stated",
    divisor=1,
    smallest=32,
    positions={
        "skips": "the backbone's maps at strides 4, 8 and 16; the first is also the boundary "
        "branch's input",
        "decoder": "the last joined map at a quarter of the image's size, before the 1×1 "
        "convolution to the classes",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "https://github.com/YuWenLo/HarDNet-DFUS (kingnet53.pth)",
            "licence": "none stated",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={
        "width": 2,
        "embedding": 8,
        "boundary": 6,
        "decoder_channels": 16,
        "heads": (4, 2, 1),
    },
)


class HarDNetDFUS(SegmentationNetwork):
    """KingNet-53 gives maps at the strides 4, 8, 16 and 32. Linear maps of the three coarse ones
    are joined at stride 8 (F); a 1×1 convolution of F, its mean over space, and three large-window
    attentions of it are joined; the result is joined with a linear map of the finest one at stride
    4, and a 1×1 convolution returns the logits. All resizings are bilinear.

    Auxiliary outputs: `deep-1` (logits from F), `deep-2` (logits from the linear map at stride 32),
    `boundary` (the linear map at stride 4 itself, each channel of which learns the boundaries).

    Any size from 32 pixels on: where 8×8 windows do not fit the map at stride 8, zeros are added at
    the bottom and the right (released: multiples of 64).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: the unit of the backbone's channels, even (released: 20).
        embedding: channels of each linear map (released: 768).
        boundary: channels of the linear map at stride 4 (released: 48).
        decoder_channels: channels of the joined maps, even (released: 512).
        heads: heads of the attention with windows that are 8, 4 and 2 times as large; each divides
            half of `decoder_channels`.

    Raises:
        UsageError: numbers that are not even, or heads that do not divide.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 20,
        embedding: int = 768,
        boundary: int = 48,
        decoder_channels: int = 512,
        heads: tuple[int, int, int] = (64, 16, 4),
    ) -> None:
        super().__init__()
        inner = decoder_channels // 2
        even = width > 1 and width % 2 == 0 and inner > 0 and decoder_channels % 2 == 0
        if not even or any(count < 1 or inner % count for count in heads):
            raise UsageError(
                "creating the network 'hardnet-dfus'",
                expected="even width and decoder_channels, heads that divide half of the latter",
                found=f"width={width}, decoder_channels={decoder_channels}, heads={heads}",
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 32
        self.backbones = {"encoder": None}
        self.encoder = KingNet(in_channels, width=width)
        fine, *deeper = self.encoder.out_channels
        self.channels = {
            "skips": (fine, *deeper[:-1]),
            "bottleneck": (deeper[-1],),
            "decoder": (decoder_channels,),
            "output": (classes,),
        }
        # From coarse to fine, as they are joined.
        self.embed = nn.ModuleList(
            PixelLinear(channels, embedding) for channels in reversed(deeper)
        )
        self.join = LateFusion([embedding] * len(deeper), decoder_channels)
        self.plain = ConvNorm(decoder_channels, decoder_channels, 1, activation=relu)
        self.mean = nn.Conv2d(decoder_channels, decoder_channels, 1)
        self.attentions = nn.ModuleList(
            LargeWindowAttention(decoder_channels, ratio, count)
            for ratio, count in zip(RATIOS, heads, strict=True)
        )
        self.join_attended = LateFusion([decoder_channels] * 5, decoder_channels)
        self.embed_fine = PixelLinear(fine, boundary)
        self.join_fine = LateFusion([decoder_channels, boundary], decoder_channels)
        self.classifier = nn.Conv2d(decoder_channels, classes, 1)
        self.deep_classifiers = nn.ModuleList(
            nn.Conv2d(channels, classes, 1) for channels in (decoder_channels, embedding)
        )
        self.apply(_initialise)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4, 8, 16, the bottleneck at 32."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoder(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, decoder_channels, H / 4, W / 4) before the head; in `extra` what
        the auxiliary outputs are made of.
        """
        fine, *middle = features.skips
        maps = [
            layer(one)
            for layer, one in zip(self.embed, (features.bottleneck, *reversed(middle)), strict=True)
        ]
        size = _size(maps[-1])
        joined = self.join(maps, size)
        right, bottom = -size[1] % WINDOW, -size[0] % WINDOW
        padded = pad(joined, (0, right, 0, bottom))
        attended = [attention(padded)[..., : size[0], : size[1]] for attention in self.attentions]
        # The mean is one position, which the resizing spreads over all.
        mean = self.mean(joined.mean(dim=(2, 3), keepdim=True))
        x = self.join_attended([self.plain(joined), mean, *attended], size)
        boundary = self.embed_fine(fine)
        x = self.join_fine([x, boundary], _size(fine))
        extra = {"joined": joined, "coarse": maps[0], "boundary": boundary}
        return Decoded(map=x, extra=extra)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W), resized to the image."""
        logits = _resized(self.classifier(decoded.map), size)
        if not auxiliary:
            return Output(logits=logits, auxiliary={})
        extra = decoded.extra
        first, second = self.deep_classifiers
        # A 1×1 convolution and a resizing commute; the released code resizes first.
        coarse = _resized(second(extra["coarse"]), _size(extra["joined"]))
        outputs = {
            "deep-1": first(extra["joined"]),
            "deep-2": coarse,
            "boundary": extra["boundary"],
        }
        return Output(logits, {name: _resized(one, size) for name, one in outputs.items()})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: backbone, head, last3_seg, last3_seg2."""
        backbone = self.encoder.released_names()
        prefixes = {
            "plain.0.": "head.short_path.conv.",
            "plain.1.": "head.short_path.bn.",
            "mean.": "head.image_pool.1.",
            "embed_fine.": "head.linear_c1.proj.",
            "classifier.": "head.class_seg.",
            "deep_classifiers.0.": "last3_seg.",
            "deep_classifiers.1.": "last3_seg2.",
        }
        for ours, theirs in (
            ("join", "linear_fuse"),
            ("join_attended", "cat"),
            ("join_fine", "low_level_fuse"),
        ):
            prefixes[f"{ours}.layer.0."] = f"head.{theirs}.conv."
            prefixes[f"{ours}.layer.1."] = f"head.{theirs}.bn."
        for index in range(len(self.embed)):
            prefixes[f"embed.{index}."] = f"head.linear_c{4 - index}.proj."
        for index, ratio in enumerate(RATIOS):
            attention, lawin = f"attentions.{index}", f"head.lawin_{ratio}"
            prefixes[f"{attention}.patches."] = f"head.ds_{ratio}.proj."
            prefixes[f"{attention}.norm."] = f"head.ds_{ratio}.norm."
            prefixes[f"{attention}.mixing."] = f"{lawin}.position_mixing."
            prefixes[f"{attention}.out.0."] = f"{lawin}.conv_out.conv."
            prefixes[f"{attention}.out.1."] = f"{lawin}.conv_out.bn."
            for ours, theirs in (("query", "theta"), ("key", "phi"), ("value", "g")):
                prefixes[f"{attention}.{ours}."] = f"{lawin}.{theirs}.conv."
        prefixes |= {
            f"encoder.{ours}": f"backbone.{theirs}" for ours, theirs in backbone.tensors.items()
        }
        return names_by_prefix(self, prefixes, dead=[f"backbone.{name}" for name in backbone.dead])


def _initialise(layer: nn.Module) -> None:
    """As the released code: convolutions normal by fan-out, linear maps normal with sd 0.02."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _size(x: Tensor) -> Size:
    return cast(Size, tuple(x.shape[-2:]))


def _resized(x: Tensor, size: Size) -> Tensor:
    return interpolate(x, size=size, mode="bilinear", align_corners=False)
