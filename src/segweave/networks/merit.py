"""MERIT: two MaxViTs that see the image at two scales, decoders with attention, four outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.backbones.maxvit import STRIDE, MaxViT
from segweave.blocks.cascade import CascadeDecoder
from segweave.blocks.summed_outputs import summed_outputs
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="merit",
    title="MERIT (two scales of MaxViT with cascaded attention decoding)",
    entry="MERIT",
    paper="Rahman and Marculescu, Multi-scale Hierarchical Vision Transformer with Cascaded "
    "Attention Decoding for Medical Image Segmentation, MIDL 2023 (arXiv 2303.16892)",
    forms=("paper",),
    divisor=32,
    smallest=32,
    positions={
        "encoder": "beside the backbone that sees the image at its own size",
        "skips": "those of the backbone that sees the image at its own size; the other backbone "
        "runs on the centre slice, in the decoder",
        "bottleneck": "that of the backbone that sees the image at its own size",
        "decoder": "the last map of both decoders together at 1/4 of the image's size, from which "
        "the finest of the four outputs is computed",
        "output": "the sum of the four outputs",
    },
    weights=(
        {
            "tag": "imagenet",
            "backbone": "encoders.0",
            "source": "maxvit_rmlp_small_rw_224.sw_in1k",
            "licence": "Apache-2.0",
            "mean": (0.5, 0.5, 0.5),
            "sd": (0.5, 0.5, 0.5),
        },
        {
            "tag": "imagenet",
            "backbone": "encoders.1",
            "source": "maxvit_rmlp_small_rw_224.sw_in1k",
            "licence": "Apache-2.0",
            "mean": (0.5, 0.5, 0.5),
            "sd": (0.5, 0.5, 0.5),
        },
    ),
    unfolded=(8, "MaxViT's blocks begin with a batch norm, which no convolution precedes"),
    tiny_options={
        "widths": (8, 8, 16, 16),
        "stem_widths": (8, 8),
        "depths": (1, 1, 1, 1),
        "head_width": 8,
        "position_width": 16,
    },
)

OUTPUTS = ("p1", "p2", "p3", "p4")
"""The auxiliary outputs, from the deepest map to the finest; the loss `mutation` takes them all."""
_BACKBONE = "maxvit_rmlp_small_rw_224"


class MERIT(SegmentationNetwork):
    """Two MaxViTs see the image at its size and at 7/8 of it (256 and 224 in the paper). CASCADE's
    decoder turns the maps of each into four; those of one stage are added, and a 1×1 convolution
    makes them the stage's output. The logits are the sum of the four outputs.

    Cascaded, the last map of the first decoder, as one weight per position, multiplies the image
    that the second backbone sees. What the paper leaves open is in `docs/fidelity.md`.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        cascaded: whether the second backbone sees what the first decoder returned ("cascaded
            MERIT"), or the image alone ("parallel MERIT").
        shared_decoder: whether one decoder serves both backbones; a reading that fits the printed
            number of parameters, as others do (`docs/fidelity.md`).
        join: "add" or "concatenate" a gated skip and the upsampled map.
        widths: channels of MaxViT's stages.
        stem_widths: channels of the two convolutions before the stages.
        depths: number of blocks in MaxViT's stages.
        head_width: channels per head of MaxViT's attention.
        position_width: channels of the MLP that gives the biases of relative positions.
        drop_path: rate of the stochastic depth at the end of MaxViT; it rises from 0.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        cascaded: bool = True,
        shared_decoder: bool = True,
        join: str = "add",
        widths: Sequence[int] = (96, 192, 384, 768),
        stem_widths: Sequence[int] = (32, 64),
        depths: Sequence[int] = (2, 2, 5, 2),
        head_width: int = 32,
        position_width: int = 512,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        _check_options(join, widths, stem_widths, depths, head_width)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = STRIDE
        self.shared_decoder = shared_decoder
        self.encoders = nn.ModuleList(
            MaxViT(
                _BACKBONE,
                in_channels,
                embed_dim=tuple(widths),
                stem_width=tuple(stem_widths),
                depths=tuple(depths),
                transformer_dim_head=head_width,
                transformer_rel_pos_dim=position_width,
                drop_path_rate=drop_path,
            )
            for _ in range(2)
        )
        self.backbones = dict.fromkeys(("encoders.0", "encoders.1"), f"{_BACKBONE}.sw_in1k")
        self.decoders = nn.ModuleList(
            CascadeDecoder(widths, join=join) for _ in range(1 if shared_decoder else 2)
        )
        self.gate = nn.Conv2d(widths[0], 1, 1) if cascaded else None
        # A 1×1 convolution of maps side by side is the sum of one per decoder.
        decoded = [len(self.decoders) * width for width in reversed(widths)]
        self.classifiers = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in decoded)
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (decoded[-1],),
            "output": (classes,),
        }

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the maps of the first backbone at strides 4, 8, 16 and 32. Raises
        UsageError for a wrong number of channels and for sides that are not multiples of 32.
        """
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoders[0](x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={"image": x})

    def decode(self, features: Features) -> Decoded:
        """Features → the last map of both scales at 1/4 of the image's size; the three deeper ones
        are in `extra`.
        """
        first = self.decoders[0]([*features.skips, features.bottleneck])
        image = features.extra["image"]
        size = second_size((int(image.shape[-2]), int(image.shape[-1])))
        image = _resized(image, size)
        if self.gate is not None:
            image = image * _resized(self.gate(first[-1]).sigmoid(), size)
        second = self.decoders[-1](self.encoders[1](image))
        maps = []
        for one, other in zip(first, second, strict=True):
            other = _resized(other, (one.shape[-2], one.shape[-1]))
            maps.append(one + other if self.shared_decoder else torch.cat([one, other], 1))
        return Decoded(map=maps[-1], extra=dict(zip(OUTPUTS, maps[:-1], strict=False)))

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The maps → logits (B, classes, H, W), and as auxiliary outputs the four that they are the
        sum of.
        """
        maps = {**decoded.extra, OUTPUTS[-1]: decoded.map}
        classifiers = dict(zip(OUTPUTS, self.classifiers, strict=True))
        logits, outputs = summed_outputs(maps, classifiers, size)
        return Output(logits, outputs if auxiliary else {})


def second_size(size: Size) -> Size:
    """Height and width that the second backbone sees: 7/8 of the image's, rounded down to a
    multiple of 32, at least 32; 224 for 256.
    """

    def reduced(side: int) -> int:
        return STRIDE * max(1, side // STRIDE * 7 // 8)

    return reduced(size[0]), reduced(size[1])


def _resized(x: Tensor, size: Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _check_options(
    join: str,
    widths: Sequence[int],
    stem_widths: Sequence[int],
    depths: Sequence[int],
    head_width: int,
) -> None:
    doing = "creating MERIT"
    if join not in ("add", "concatenate"):
        raise UsageError(doing, expected='join "add" or "concatenate"', found=repr(join))
    lengths = (len(widths), len(depths), len(stem_widths))
    if lengths != (4, 4, 2) or min(*widths, *depths, *stem_widths) < 1:
        raise UsageError(
            doing,
            expected="four widths, four depths and two stem_widths",
            found=f"widths={tuple(widths)}, depths={tuple(depths)}, "
            f"stem_widths={tuple(stem_widths)}",
        )
    if head_width < 1 or any(width % head_width for width in widths):
        raise UsageError(
            doing,
            expected="widths that head_width divides",
            found=f"widths={tuple(widths)}, head_width={head_width}",
        )
