"""SSFormer: a mix transformer with a decoder of progressive locality."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.pyramid_vision import PyramidVision
from segweave.blocks.fusion import LateFusion
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

PAPER = "Wang et al., Stepwise Feature Fusion: Local Guides Global, MICCAI 2022"
DECODER = "the fused map at a quarter of the image's size; the logits are upsampled from there"

CARDS = (
    NetworkCard(
        name="ssformer-s",
        title="SSFormer on MiT-B2",
        entry="SSFormer",
        paper=PAPER,
        licence="none stated",
        options={"backbone": "mit_b2"},
        weights=(
            {
                "tag": "imagenet",
                "source": "github.com/NVlabs/SegFormer/mit_b2.pth",
                "licence": "NVIDIA Source Code License, not for commercial use",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        smallest=32,
        positions={"decoder": DECODER},
        tiny_options={"backbone": "tiny", "width": 8},
    ),
    NetworkCard(
        name="ssformer-l",
        title="SSFormer on MiT-B4",
        entry="SSFormer",
        paper=PAPER,
        licence="none stated",
        options={"backbone": "mit_b4"},
        weights=(
            {
                "tag": "imagenet",
                "source": "github.com/NVlabs/SegFormer/mit_b4.pth",
                "licence": "NVIDIA Source Code License, not for commercial use",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        smallest=32,
        positions={"decoder": DECODER},
        tiny_options={"backbone": "tiny", "width": 8},
    ),
)


class LocalEmphasis(nn.Sequential):
    """Two 3×3 convolutions without bias, each with a ReLU (Section 2.2): (B, C_in, H, W) → (B,
    C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
        )


class SSFormer(SegmentationNetwork):
    """Each map of the backbone passes a local emphasis; the results are fused from deep to shallow
    at a quarter of the image (1×1 convolution, batch norm, ReLU).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        backbone: `mit_b2` (S), `mit_b4` (L) or another `PyramidVision`.
        width: channels of the decoder (released: 256).
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        backbone: str = "mit_b2",
        width: int = 256,
    ) -> None:
        super().__init__()
        self.backbone = PyramidVision(backbone, in_channels, drop_path=0.1)
        widths = self.backbone.widths
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 32
        self.backbones = {"backbone": self.backbone.timm_name}
        self.channels = {
            "skips": widths[:-1],
            "bottleneck": (widths[-1],),
            "decoder": (width,),
            "output": (classes,),
        }
        self.emphasis = nn.ModuleList(LocalEmphasis(before, width) for before in widths)
        self.fusions = nn.ModuleList(LateFusion((width, width), width) for _ in range(3))
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4, 8, 16 and the bottleneck at 32."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.backbone(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the fused map (B, width, H / 4, W / 4), rounded up."""
        maps = [
            layer(one)
            for layer, one in zip(
                self.emphasis, (*features.skips, features.bottleneck), strict=True
            )
        ]
        size = (int(maps[0].shape[-2]), int(maps[0].shape[-1]))
        x = maps.pop()
        for fusion in self.fusions:
            x = fusion([x, maps.pop()], size)
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The fused map → logits (B, classes, H, W), resized with the corners aligned."""
        logits = self.classifier(self.dropout(decoded.map))
        return Output(
            logits=interpolate(logits, size=size, mode="bilinear", align_corners=True),
            auxiliary={},
        )

    def released_names(self) -> ReleasedNames:
        """Names of the released code: backbone, decode_head with linear_c4 … c1, linear_fuse34 …"""
        prefixes = {
            f"backbone.{ours}": f"backbone.{theirs}"
            for ours, theirs in self.backbone.prefixes().items()
        }
        for index in range(4):
            prefixes[f"emphasis.{index}."] = f"decode_head.linear_c{index + 1}.proj."
        for index, name in enumerate(("34", "2", "1")):
            prefixes[f"fusions.{index}.layer.0."] = f"decode_head.linear_fuse{name}.conv."
            prefixes[f"fusions.{index}.layer.1."] = f"decode_head.linear_fuse{name}.bn."
        # A fusion of all four maps is built there and never called.
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        dead = ["decode_head.linear_fuse.conv.weight"]
        dead += [f"decode_head.linear_fuse.bn.{name}" for name in norm]
        return names_by_prefix(
            self, {**prefixes, "classifier.": "decode_head.linear_pred."}, dead=dead
        )
