"""PraNet: a coarse map from three maps of Res2Net-50, refined by reverse attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.deep_maps import RES2NET, deep_maps
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="pranet",
    title="PraNet (Res2Net-50, parallel reverse attention)",
    entry="PraNet",
    paper="Fan et al., PraNet: Parallel Reverse Attention Network for Polyp Segmentation, MICCAI "
    "2020",
    licence="none stated; the readme allows research and education",
    divisor=1,
    smallest=32,
    positions={
        "skips": "the backbone's maps at strides 8 and 16, which both the coarse map and the "
        "reverse attention read",
        "bottleneck": "the backbone's map at stride 32, read by both too",
        "decoder": "the map of the last reverse attention (64 channels, an eighth of the image's "
        "size), to whose last convolution the coarser logits are added",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "res2net50d",
            "licence": "unknown (trained by the authors of Res2Net)",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={
        "width": 4,
        "attention_widths": (4, 4, 8),
        "encoder_options": {"layers": (1, 2, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 4},
    },
)


class ReceptiveField(nn.Module):
    """Receptive field block: a 1×1 convolution, and three branches of 1×1, 1×k, k×1 and 3×3 with
    dilation k for k = 3, 5, 7; joined by a 3×3 one; plus a 1×1 shortcut; ReLU. Each convolution has
    a batch norm, and none but the last an activation. (B, C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels
        self.branches = nn.ModuleList([nn.Sequential(ConvNorm(in_channels, width, 1))])
        for k in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    ConvNorm(in_channels, width, 1),
                    ConvNorm(width, width, (1, k)),
                    ConvNorm(width, width, (k, 1)),
                    ConvNorm(width, width, 3, dilation=k),
                )
            )
        self.join = ConvNorm(4 * width, width, 3)
        self.shortcut = ConvNorm(in_channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        joined = self.join(torch.cat([branch(x) for branch in self.branches], dim=1))
        return cast(Tensor, (joined + self.shortcut(x)).relu())


class PartialDecoder(nn.Module):
    """Parallel partial decoder (Section 2.2) of three maps of `width` channels, from fine to
    coarse: (B, width, h, w) each → the coarse logits (B, classes, h, w). Coarser maps are resized
    to finer ones (bilinear, corners aligned), multiplied and joined.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.product = nn.ModuleList(ConvNorm(width, width, 3) for _ in range(3))
        self.raise_coarse = ConvNorm(width, width, 3)
        self.raise_joined = ConvNorm(2 * width, 2 * width, 3)
        self.join_middle = ConvNorm(2 * width, 2 * width, 3)
        self.join_fine = ConvNorm(3 * width, 3 * width, 3)
        self.last = ConvNorm(3 * width, 3 * width, 3)
        self.classifier = nn.Conv2d(3 * width, classes, 1)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """Maps of three sizes → logits of the first one's size."""

        def raised(x: Tensor, target: Tensor) -> Tensor:
            return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=True)

        once = raised(coarse, middle)
        twice = raised(once, fine)
        fine = self.product[1](twice) * self.product[2](raised(middle, fine)) * fine
        middle = self.product[0](once) * middle
        joined = self.join_middle(torch.cat([middle, self.raise_coarse(once)], dim=1))
        joined = torch.cat([fine, self.raise_joined(raised(joined, fine))], dim=1)
        return cast(Tensor, self.classifier(self.last(self.join_fine(joined))))


class ReverseAttention(nn.Module):
    """Reverse attention (Section 2.3): where the coarser logits are high the features are erased,
    and the convolutions find what they left out, as a change of the logits.

    With several classes the features are multiplied by the mean over classes of 1 − sigmoid.

    Args:
        in_channels: channels of the features.
        width: channels inside.
        classes: channels of the logits.
        kernel_size: of the convolutions behind the first, which is 1×1.
        layers: number of these.
        last_kernel: kernel size of the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        classes: int,
        *,
        kernel_size: int = 3,
        layers: int = 2,
        last_kernel: int = 3,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(in_channels, width, 1),
            *(ConvNorm(width, width, kernel_size, activation=relu) for _ in range(layers)),
        )
        self.change = ConvNorm(width, classes, last_kernel)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Features (B, C, h, w) and logits (B, classes, h, w) → (B, width, h, w); `change` of it is
        added to the logits.
        """
        # 1 − sigmoid(x) = sigmoid(−x)
        return cast(Tensor, self.body((-logits).sigmoid().mean(1, keepdim=True) * features))


class PraNet(SegmentationNetwork):
    """Receptive field blocks and the partial decoder give coarse logits at stride 8, reverse
    attention refines them at the strides 32, 16 and 8. Auxiliary outputs, from coarse to fine:
    `global` (the coarse logits), `stage-4`, `stage-3`; the logits are those of stage 2. Outputs are
    resized to the image (bilinear). Any size from 32 pixels on.

    Args:
        in_channels: channels of an image; timm adapts the first convolution.
        classes: channels of the logits.
        width: channels of the receptive field blocks (released: 32).
        attention_widths: channels of the reverse attention at strides 8, 16 and 32.
        encoder: a timm name; the backbone has maps at the strides 8, 16 and 32.
        encoder_options: further options of `timm.create_model`.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a name that timm does not know, or a backbone without such maps.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 32,
        attention_widths: tuple[int, int, int] = (64, 64, 256),
        encoder: str = RES2NET,
        encoder_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, widths = deep_maps(encoder, in_channels, encoder_options)
        fine, middle, coarse = attention_widths
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 32
        self.backbones = {"encoder": encoder}
        self.channels = {
            "skips": widths[:2],
            "bottleneck": widths[2:],
            "decoder": (fine,),
            "output": (classes,),
        }
        self.fields = nn.ModuleList(ReceptiveField(channels, width) for channels in widths)
        self.partial_decoder = PartialDecoder(width, classes)
        self.reverse = nn.ModuleList(
            [
                ReverseAttention(widths[0], fine, classes),
                ReverseAttention(widths[1], middle, classes),
                ReverseAttention(
                    widths[2], coarse, classes, kernel_size=5, layers=3, last_kernel=1
                ),
            ]
        )

    def _reverse(self, stage: int) -> ReverseAttention:
        """The reverse attention of a stage, 2 to 4."""
        return cast(ReverseAttention, self.reverse[stage - 2])

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 8 and 16, the bottleneck at 32."""
        self.check_image(x, **inputs)
        fine, middle, coarse = self.encoder(x)
        return Features(skips=(fine, middle), bottleneck=coarse, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the last map of the reverse attention, (B, width, H / 8, W / 8), with the
        coarser logits in `extra`.
        """
        maps = (*features.skips, features.bottleneck)
        logits = self.partial_decoder(
            *(field(one) for field, one in zip(self.fields, maps, strict=True))
        )
        extra = {"global": logits}
        for stage in (4, 3):
            attention, one = self._reverse(stage), maps[stage - 2]
            logits = _resized(logits, one.shape[-2:])
            logits = attention.change(attention(one, logits)) + logits
            extra[f"stage-{stage}"] = logits
        extra["coarser"] = _resized(logits, maps[0].shape[-2:])
        return Decoded(map=self._reverse(2)(maps[0], extra["coarser"]), extra=extra)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W); coarser ones are auxiliary outputs."""
        logits = self._reverse(2).change(decoded.map) + decoded.extra["coarser"]
        names = ("global", "stage-4", "stage-3") if auxiliary else ()
        return Output(
            logits=_resized(logits, size),
            auxiliary={name: _resized(decoded.extra[name], size) for name in names},
        )

    def released_names(self) -> ReleasedNames:
        """Names of the released code: resnet, rfb2_1 … rfb4_1, agg1, ra2_conv1 …. The backbone's
        ImageNet classifier is dead.
        """
        prefixes = {"encoder.": "resnet."}

        def layer(ours: str, theirs: str) -> None:
            prefixes[f"{ours}.0."], prefixes[f"{ours}.1."] = f"{theirs}.conv.", f"{theirs}.bn."

        for i in range(3):
            field, attention = f"rfb{i + 2}_1", f"ra{i + 2}_conv"
            for branch in range(4):
                for k in range(4 if branch else 1):
                    layer(f"fields.{i}.branches.{branch}.{k}", f"{field}.branch{branch}.{k}")
            layer(f"fields.{i}.join", f"{field}.conv_cat")
            layer(f"fields.{i}.shortcut", f"{field}.conv_res")
            layers = len(self._reverse(i + 2).body)
            for k in range(layers):
                layer(f"reverse.{i}.body.{k}", f"{attention}{k + 1}")
            layer(f"reverse.{i}.change", f"{attention}{layers + 1}")
        for ours, theirs in (
            ("product.0", "conv_upsample1"),
            ("product.1", "conv_upsample2"),
            ("product.2", "conv_upsample3"),
            ("raise_coarse", "conv_upsample4"),
            ("raise_joined", "conv_upsample5"),
            ("join_middle", "conv_concat2"),
            ("join_fine", "conv_concat3"),
            ("last", "conv4"),
        ):
            layer(f"partial_decoder.{ours}", f"agg1.{theirs}")
        prefixes["partial_decoder.classifier."] = "agg1.conv5."
        return names_by_prefix(self, prefixes, dead=("resnet.fc.weight", "resnet.fc.bias"))


def _resized(x: Tensor, size: torch.Size | Size) -> Tensor:
    return interpolate(x, size=size, mode="bilinear", align_corners=False)
