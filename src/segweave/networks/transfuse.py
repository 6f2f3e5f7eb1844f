"""TransFuse: a ResNet and a vision transformer side by side, their maps fused at three levels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.plain_vit import PATCH, PlainViT
from segweave.backbones.resnet import RESNET34, resnet_stages
from segweave.blocks.attention_gate import AttentionGate
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

DEIT_SMALL = "deit_small_patch16_224"

CARD = NetworkCard(
    name="transfuse-s",
    title="TransFuse-S (ResNet-34 and DeiT-S, fused at three levels)",
    entry="TransFuse",
    paper="Zhang et al., TransFuse: Fusing Transformers and CNNs for Medical Image Segmentation, "
    "MICCAI 2021",
    licence="none stated",
    divisor=16,
    smallest=16,
    positions={
        "skips": "the ResNet's maps at strides 4, 8 and 16",
        "bottleneck": "the transformer's tokens as a map; its two finer maps are made of it in the "
        "decoder",
        "decoder": "the finest fused map (64 channels, a quarter of the image's size)",
    },
    weights=(
        {
            "tag": "imagenet",
            "backbone": "convolutional",
            "source": "resnet34.tv_in1k",
            "licence": "BSD-3-Clause",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
        {
            "tag": "imagenet",
            "backbone": "transformer",
            "source": DEIT_SMALL,
            "licence": "Apache-2.0",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    unfolded=(3, "the bottleneck of each fusion begins with a batch norm"),
    tiny_options={
        "encoder": "test_resnet",
        "hidden": 8,
        "layers": 1,
        "heads": 2,
        "image_size": (32, 48),
    },
)


class ResidualConvolutions(nn.Module):
    """Two 3×3 convolutions with batch norm, plus a 1×1 one of the input with batch norm; ReLU: (B,
    C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *ConvNorm(in_channels, out_channels, 3, bias=True, activation=relu),
            *ConvNorm(out_channels, out_channels, 3, bias=True),
        )
        self.shortcut = ConvNorm(in_channels, out_channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        return cast(Tensor, (self.body(x) + self.shortcut(x)).relu_())


class BiFusion(nn.Module):
    """BiFusion module (Section 2.3) of a map g of the convolutions and a map t of the transformer:
    g with spatial attention, t with channel attention, and a convolution of the product of both, in
    a bottleneck with pre-activation. (B, C_g, H, W) and (B, C_t, H, W) → (B, width, H, W).

    Args:
        convolutional: channels of g.
        transformer: channels of t.
        width: channels of the result and of the product.
        reduction: channels of t divided by those of the hidden layer of the channel attention.
        dropout: rate at which whole channels of the result are dropped in training.
    """

    def __init__(
        self, convolutional: int, transformer: int, width: int, reduction: int, dropout: float
    ) -> None:
        super().__init__()
        hidden = max(1, transformer // reduction)
        self.channel = nn.Sequential(
            nn.Conv2d(transformer, hidden, 1),
            relu(),
            nn.Conv2d(hidden, transformer, 1),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(*ConvNorm(2, 1, 7), nn.Sigmoid())
        self.from_convolutional = ConvNorm(convolutional, width, 1, bias=True)
        self.from_transformer = ConvNorm(transformer, width, 1, bias=True)
        self.product = ConvNorm(width, width, 3, bias=True, activation=relu)
        joined, inner = convolutional + transformer + width, width // 2
        self.shortcut = nn.Conv2d(joined, width, 1)
        # Unpacked, so that each convolution and the batch norm behind it are neighbours.
        self.bottleneck = nn.Sequential(
            nn.BatchNorm2d(joined),
            relu(),
            *ConvNorm(joined, inner, 1, bias=True, activation=relu),
            *ConvNorm(inner, inner, 3, bias=True, activation=relu),
            nn.Conv2d(inner, width, 1),
        )
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, g: Tensor, t: Tensor) -> Tensor:
        """(B, C_g, H, W) and (B, C_t, H, W) → (B, width, H, W)."""
        product = self.product(self.from_convolutional(g) * self.from_transformer(t))
        summary = torch.cat([g.amax(1, keepdim=True), g.mean(1, keepdim=True)], dim=1)
        g = self.spatial(summary) * g
        t = self.channel(t.mean(dim=(2, 3), keepdim=True)) * t
        joined = torch.cat([g, t, product], dim=1)
        return cast(Tensor, self.dropout(self.bottleneck(joined) + self.shortcut(joined)))


class TransFuse(SegmentationNetwork):
    """The ResNet's maps at the strides 4, 8 and 16 are fused with the transformer's, which is
    doubled twice; the coarsest fused map goes up and is joined twice with a fused map behind an
    attention gate. All resizings are bilinear with aligned corners.

    Auxiliary outputs: `coarse` (logits from the coarsest fused map) and `transformer` (from the
    transformer's finest map). The authors' loss is 0.5, 0.2 and 0.3 times that of the logits,
    `coarse` and `transformer`.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        encoder: a timm name of a ResNet.
        encoder_options: further options of `timm.create_model`.
        hidden: channels of a token (released: 384).
        layers: number of transformer blocks (released: 8).
        heads: heads of the attention, a divisor of `hidden`.
        dropout: rate at which whole channels of each map of both branches are dropped in training;
            half of it behind each fusion.
        image_size: side, or height and width, of the image for which the position table is kept; it
            is interpolated for others.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a backbone that is not a ResNet, or options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        encoder: str = RESNET34,
        encoder_options: Mapping[str, Any] | None = None,
        hidden: int = 384,
        layers: int = 8,
        heads: int = 6,
        dropout: float = 0.2,
        image_size: int | Size = (192, 256),
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(height, width) < PATCH or height % PATCH or width % PATCH:
            raise UsageError(
                "creating a TransFuse",
                expected=f"an image_size that {PATCH} divides",
                found=f"image_size={image_size}",
            )
        self.convolutional, widths = resnet_stages(
            encoder, in_channels, encoder_options, levels=(1, 2, 3), dropout=dropout
        )
        fine, middle, coarse = widths
        self.transformer = PlainViT(
            in_channels,
            width=hidden,
            depth=layers,
            heads=heads,
            grid=(height // PATCH, width // PATCH),
        )
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = PATCH
        self.backbones = {"convolutional": encoder, "transformer": DEIT_SMALL}
        self.channels = {
            "skips": widths,
            "bottleneck": (hidden,),
            "decoder": (fine,),
            "output": (classes,),
        }
        self.drop = nn.Dropout2d(dropout)
        # From coarse to fine, as they are used.
        self.raised = nn.ModuleList(
            ResidualConvolutions(before, after)
            for before, after in pairwise((hidden, middle, fine))
        )
        self.fusions = nn.ModuleList(
            BiFusion(one, other, one, reduction, dropout / 2)
            for one, other, reduction in zip(
                (coarse, middle, fine), (hidden, middle, fine), (4, 2, 1), strict=True
            )
        )
        steps = list(pairwise((coarse, middle, fine)))
        self.gates = nn.ModuleList(AttentionGate(before, after, after) for before, after in steps)
        self.joins = nn.ModuleList(
            ResidualConvolutions(before + after, after) for before, after in steps
        )
        self.coarse_head = nn.Sequential(
            ConvNorm(coarse, fine, 1, bias=True, activation=relu), _head(fine, classes)
        )
        self.transformer_head = _head(fine, classes)
        self.classifier = _head(fine, classes)
        for name, module in self.named_children():
            if name not in self.backbones:
                module.apply(_start)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the ResNet's maps at strides 4, 8 and 16, and the transformer's at 16."""
        self.check_image(x, **inputs)
        skips = tuple(self.convolutional(x))
        return Features(skips=skips, bottleneck=self.drop(self.transformer(x)), extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the finest fused map (B, C, H / 4, W / 4); in `extra` what the auxiliary
        outputs are made of.
        """
        transformed = [features.bottleneck]
        for layer in self.raised:
            transformed.append(self.drop(layer(_doubled(transformed[-1]))))
        first, *finer = (
            fusion(g, t)
            for fusion, g, t in zip(
                self.fusions, reversed(features.skips), transformed, strict=True
            )
        )
        x = first
        for gate, join, fused in zip(self.gates, self.joins, finer, strict=True):
            x = _doubled(x)
            x = join(torch.cat([gate(x, fused), x], dim=1))
        return Decoded(map=x, extra={"coarse": first, "transformer": transformed[-1]})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W), resized to the image."""
        logits = _resized(self.classifier(decoded.map), size)
        if not auxiliary:
            return Output(logits=logits, auxiliary={})
        outputs = {
            "coarse": self.coarse_head(decoded.extra["coarse"]),
            "transformer": self.transformer_head(decoded.extra["transformer"]),
        }
        return Output(logits, {name: _resized(one, size) for name, one in outputs.items()})

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (Rayicer/TransFuse); the class token is dead there."""
        prefixes = {"convolutional.": "resnet.", "transformer.": "transformer."}

        def layer(ours: str, theirs: str) -> None:
            prefixes[f"{ours}.0."], prefixes[f"{ours}.1."] = f"{theirs}.conv.", f"{theirs}.bn."

        def residual(ours: str, theirs: str) -> None:
            prefixes[f"{ours}.body."] = f"{theirs}.conv.double_conv."
            prefixes[f"{ours}.shortcut."] = f"{theirs}.conv.identity."

        for i, name in enumerate(("up_c", "up_c_1_1", "up_c_2_1")):
            ours = f"fusions.{i}"
            prefixes[f"{ours}.channel.0."] = f"{name}.fc1."
            prefixes[f"{ours}.channel.2."] = f"{name}.fc2."
            layer(f"{ours}.spatial", f"{name}.spatial")
            layer(f"{ours}.from_convolutional", f"{name}.W_g")
            layer(f"{ours}.from_transformer", f"{name}.W_x")
            layer(f"{ours}.product", f"{name}.W")
            prefixes[f"{ours}.shortcut."] = f"{name}.residual.skip_layer.conv."
            parts = {
                0: "bn1",
                2: "conv1.conv",
                3: "bn2",
                5: "conv2.conv",
                6: "bn3",
                8: "conv3.conv",
            }
            for k, part in parts.items():
                prefixes[f"{ours}.bottleneck.{k}."] = f"{name}.residual.{part}."
        for i in range(2):
            residual(f"raised.{i}", f"up{i + 1}")
            joined = f"up_c_{i + 1}_2"
            residual(f"joins.{i}", joined)
            for ours, theirs in (("signal", "W_g"), ("skip", "W_x"), ("score", "psi")):
                prefixes[f"gates.{i}.{ours}."] = f"{joined}.attn_block.{theirs}."
        layer("coarse_head.0", "final_x.0")
        heads = {"coarse_head.1": ("final_x", 1), "transformer_head": ("final_1", 0)}
        for ours, (theirs, first) in (heads | {"classifier": ("final_2", 0)}).items():
            layer(f"{ours}.0", f"{theirs}.{first}")
            prefixes[f"{ours}.1."] = f"{theirs}.{first + 1}.conv."
        return names_by_prefix(self, prefixes, dead=["transformer.cls_token"])


def _head(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(width, width, 3, bias=True, activation=relu),
        nn.Conv2d(width, classes, 3, padding=1),
    )


def _start(module: nn.Module) -> None:
    """As the released code: convolutions Kaiming normal by fan-in, their biases uniform."""
    if isinstance(module, nn.Conv2d):
        # The biases' start in PyTorch is the same: uniform within ±1 / √fan-in.
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


def _doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _resized(x: Tensor, size: Size) -> Tensor:
    return interpolate(x, size=size, mode="bilinear", align_corners=True)
