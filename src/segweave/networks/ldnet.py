"""LDNet: a kernel for each image, refined stage by stage with the masks that it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.deep_maps import FIVE_LEVELS, RES2NET, deep_maps
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.dynamic_kernel import FirstKernel, KernelUpdate, apply_kernels
from segweave.blocks.lesion_attention import LesionAttention, PooledAttention
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

PAPER = "Zhang et al., Lesion-Aware Dynamic Kernel for Polyp Segmentation, MICCAI 2022"
POSITIONS = {
    "skips": "the backbone's maps at strides 2, 4, 8 and 16, reduced in channels where it has many",
    "bottleneck": "the backbone's map at stride 32, reduced likewise, of which the first kernel is "
    "made too",
    "decoder": "the last decoder block's map at the image's size, from which the kernel is updated "
    "once more and to which it is then applied",
}
MEAN = (0.485, 0.456, 0.406)
SD = (0.229, 0.224, 0.225)
NAMES = ("half", "quarter", "eighth", "sixteenth")

CARDS = (
    NetworkCard(
        name="ldnet",
        title="LDNet (Res2Net-50, lesion-aware dynamic kernel)",
        entry="LDNet",
        paper=PAPER,
        licence="none stated",
        divisor=1,
        smallest=32,
        positions=POSITIONS,
        weights=(
            {
                "tag": "imagenet",
                "source": "res2net50d",
                "licence": "unknown (trained by the authors of Res2Net)",
                "mean": MEAN,
                "sd": SD,
            },
        ),
        tiny_options={
            "widths": (8, 8, 16, 32),
            "unified": 8,
            "heads": 2,
            "encoder_options": {
                "layers": (1, 1, 1, 1),
                "channels": (8, 8, 16, 16),
                "stem_width": 4,
            },
        },
    ),
    NetworkCard(
        name="ldnet-resnet34",
        title="LDNet on ResNet-34",
        entry="LDNet",
        paper=PAPER,
        licence="none stated",
        options={"encoder": "resnet34"},
        divisor=1,
        smallest=32,
        positions=POSITIONS,
        weights=(
            {
                "tag": "imagenet",
                "source": "resnet34",
                "licence": "Apache-2.0",
                "mean": MEAN,
                "sd": SD,
            },
        ),
        tiny_options={
            "widths": (8, 8, 16, 32),
            "unified": 8,
            "heads": 2,
            "encoder_options": {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 32)},
        },
    ),
)


class LDNet(SegmentationNetwork):
    """A backbone gives maps at the strides 2 to 32. The coarsest one gives one 1×1 kernel per image
    and class. Five decoder blocks follow, each of which doubles the size; a 1×1 convolution takes
    each block's map to `unified` channels, the kernel is updated by what the last prediction finds
    in them (Section 2.2) and, applied to them, gives the next prediction. Before each further block
    the decoder's map attends to the lesion that was predicted, the skip to its own pooled tokens
    (Section 2.3), and both are joined.

    Auxiliary outputs: the logits of the earlier stages, `half`, `quarter`, `eighth` and
    `sixteenth`, resized to the image.

    Any size from 32×32 on: maps are resized to the size of the skip (released: multiples of 32).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits. Each class has a separate kernel.
        encoder: a timm backbone with five levels (released: `res2net50d`, `resnet34`).
        encoder_options: further options of `timm.create_model`.
        widths: channels to which the maps at strides 4 to 32 are reduced, where they have another
            number; 4 divides each, 16 the last one (released: 64, 128, 256, 512).
        unified: channels that a kernel reads (released: 64).
        heads: heads of 64 channels in each attention (released: 8).

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a backbone without such maps, or impossible numbers.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        encoder: str = RES2NET,
        encoder_options: Mapping[str, Any] | None = None,
        widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        unified: int = 64,
        heads: int = 8,
    ) -> None:
        super().__init__()
        widths = cast(tuple[int, int, int, int], tuple(widths))
        possible = min(*widths, unified, heads) >= 1 and widths[-1] % 16 == 0
        if not possible or len(widths) != 4 or any(width % 4 for width in widths):
            raise UsageError(
                "creating an LDNet",
                expected="four widths that 4 divides, the last one that 16 divides; unified and "
                "heads of at least 1",
                found=f"widths={widths}, unified={unified}, heads={heads}",
            )
        self.encoder, given = deep_maps(encoder, in_channels, encoder_options, levels=FIVE_LEVELS)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 32
        self.backbones = {"encoder": encoder}
        skips = (given[0], *widths[:-1])
        self.channels = {
            "skips": skips,
            "bottleneck": widths[-1:],
            "decoder": widths[:1],
            "output": (classes,),
        }
        self.reduce = nn.ModuleList(
            nn.Identity() if before == after else nn.Conv2d(before, after, 1)
            for before, after in zip(given[1:], widths, strict=True)
        )
        # From coarse to fine, as they are run.
        outputs = (*reversed(widths), widths[0])
        self.first_kernel = FirstKernel(widths[-1], classes, unified)
        self.updates = nn.ModuleList(KernelUpdate(unified) for _ in skips)
        self.unify = nn.ModuleList(nn.Conv2d(width, unified, 1) for width in outputs)
        self.lesion = nn.ModuleList(LesionAttention(width, heads) for width in outputs[:-1])
        self.own = nn.ModuleList(PooledAttention(width, heads) for width in reversed(skips))
        joined = (before + skip for before, skip in zip(outputs, reversed(skips), strict=False))
        self.decoder = nn.ModuleList(
            _block(before, after)
            for before, after in zip((widths[-1], *joined), outputs, strict=True)
        )

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 2, 4, 8 and 16, the bottleneck at 32."""
        self.check_image(x, **inputs)
        fine, *deeper = self.encoder(x)
        *skips, bottleneck = (reduce(one) for reduce, one in zip(self.reduce, deeper, strict=True))
        return Features(skips=(fine, *skips), bottleneck=bottleneck, extra={"image": x})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, widths[0], H, W) before the head; in `extra` the kernel (B,
        classes, unified) and the logits of the earlier stages, each at its size.
        """
        kernel, extra = self.first_kernel(features.bottleneck), {}
        *blocks, last = self.decoder
        x, logits = features.bottleneck, None
        for stage, (block, skip) in enumerate(zip(blocks, reversed(features.skips), strict=True)):
            x = _resized(block(x), skip)
            unified = self.unify[stage](x)
            if logits is not None:
                kernel = self.updates[stage - 1](kernel, logits, unified)
            logits = apply_kernels(kernel, unified)
            extra[NAMES[-1 - stage]] = logits
            x = torch.cat([self.lesion[stage](x, logits), self.own[stage](skip)], dim=1)
        x = _resized(last(x), features.extra["image"])
        return Decoded(map=x, extra={"kernel": kernel, **extra})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W) by the kernel's last update; those of the
        earlier stages are auxiliary outputs.
        """
        extra = decoded.extra
        unified = self.unify[-1](decoded.map)
        kernel = self.updates[-1](extra["kernel"], extra[NAMES[0]], unified)
        return Output(
            logits=apply_kernels(kernel, unified),
            auxiliary={
                name: interpolate(extra[name], size=size, mode="bilinear", align_corners=False)
                for name in (NAMES if auxiliary else ())
            },
        )

    def released_names(self) -> ReleasedNames:
        """Names of the released code: encoder1_conv … encoder5, reduce2 …, decoder5 and
        decoderList, headUpdators …. It holds the modules of its lists under second names too.
        """
        prefixes = {
            "encoder.conv1.": "encoder1_conv.",
            "encoder.bn1.": "encoder1_bn.",
            "first_kernel.norm.": "gobal_average_pool.0.",
            "first_kernel.linear.": "generate_head.",
            "unify.0.": "unify5.",
        }
        again: dict[str, str] = {}
        for i in range(4):
            prefixes[f"encoder.layer{i + 1}."] = f"encoder{i + 2}."
            prefixes[f"reduce.{i}."] = f"reduce{i + 2}."
            prefixes[f"updates.{i}."] = f"headUpdators.{i}."
            prefixes[f"unify.{i + 1}."] = f"unifyList.{i}."
            again |= {f"unifyList.{i}.": f"unify{4 - i}.", f"decoderList.{i}.": f"decoder{4 - i}."}
            for ours, theirs in (("lesion", "lca"), ("own", "esa")):
                again[f"{theirs}List.{i}."] = f"{theirs}{4 - i}."
                for part, released in (
                    ("to_qkv", f"{theirs.upper()}layer.to_qkv"),
                    ("to_out", f"{theirs.upper()}layer.to_out.0"),
                    ("norm", "ff.norm"),
                    ("mlp.fc1", "ff.fn.net.0"),
                    ("mlp.fc2", "ff.fn.net.3"),
                ):
                    prefixes[f"{ours}.{i}.{part}."] = f"{theirs}List.{i}.{released}."
        for stage in range(len(self.decoder)):
            block = f"decoderList.{stage - 1}" if stage else "decoder5"
            for layer in (0, 1):
                unit = f"{block}.conv{layer + 1}"
                prefixes[f"decoder.{stage}.{layer}.0."] = f"{unit}.conv."
                prefixes[f"decoder.{stage}.{layer}.1."] = f"{unit}.bn."
        tensors = names_by_prefix(self, prefixes).tensors
        copies = [
            second + name.removeprefix(first)
            for name in tensors.values()
            for first, second in again.items()
            if name.startswith(first)
        ]
        return ReleasedNames(tensors, fixed=frozenset(copies))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 convolutions with batch norm and ReLU, a quarter of the channels between them."""
    inner = in_channels // 4
    return nn.Sequential(
        ConvNorm(in_channels, inner, 3, bias=True, activation=relu),
        ConvNorm(inner, out_channels, 3, bias=True, activation=relu),
    )


def _resized(x: Tensor, target: Tensor) -> Tensor:
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=True)
