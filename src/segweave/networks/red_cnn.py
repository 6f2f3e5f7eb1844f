"""RED-CNN: a residual encoder and decoder of convolutions that removes the noise of low-dose CT."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.image_residual import image_of, start_near_image, with_image
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="red-cnn",
    title="Residual encoder-decoder network for low-dose CT (RED-CNN)",
    entry="RedCNN",
    paper="Chen et al., Low-dose CT with a residual encoder-decoder convolutional neural network, "
    "IEEE Transactions on Medical Imaging 36, 2017",
    forms=("paper",),
    positions={
        "skips": "the maps behind the second and the fourth convolution",
        "bottleneck": "the map behind the fifth convolution, of the image's size",
        "decoder": "the map before the last transposed convolution",
        "output": "the predicted image",
    },
    tiny_options={"width": 4},
)

_LAYERS = 5
_KERNEL = 5
_MARGIN = _LAYERS * (_KERNEL // 2)


class RedCNN(SegmentationNetwork):
    """Five 5×5 convolutions and five transposed ones, stride 1, no padding, `width` channels, each
    with a ReLU; the maps behind the second and the fourth convolution are added behind the third
    and the first transposed one, and the image to the result, so that the network learns what is
    to be taken away. With 96 channels and one of the image 1,848,865 parameters, as published.

    Without padding a map loses four pixels per convolution and gets them back. Here the image is
    extended by its edge values first, so that the bottleneck has its size. The published start
    values (sd 0.01) hardly train within minutes: these are He's, with a last layer near 0.

    Where the number of `classes` is not that of the image's channels, nothing is added and the
    result is that of the last layer alone.

    Args:
        in_channels: channels of an image.
        classes: channels of the result; those of the image for a network that predicts an image.
        width: channels of every map.
        rectified: whether a ReLU follows the sum with the image, as in the paper: right for images
            that are normalised to 0 (air) and more.

    Raises UsageError for a width below 1.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 96,
        rectified: bool = True,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(
                "creating the network 'red-cnn'", expected="a width from 1", found=f"{width}"
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = 1
        self.rectified = rectified
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, width, _KERNEL) for before in [in_channels, *[width] * (_LAYERS - 1)]
        )
        self.transposed = nn.ModuleList(
            nn.ConvTranspose2d(width, after, _KERNEL) for after in [width] * (_LAYERS - 1)
        )
        self.classifier = nn.ConvTranspose2d(width, classes, _KERNEL)
        for layer in (*self.convolutions, *self.transposed):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
        start_near_image(self.classifier)
        self.channels = {
            "skips": (width, width),
            "bottleneck": (width,),
            "decoder": (width,),
            "output": (classes,),
        }

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → two skips, larger than the image, and the bottleneck of its size. Raises
        UsageError for a wrong number of channels.
        """
        self.check_image(x, **inputs)
        maps = []
        map = functional.pad(x, (_MARGIN,) * 4, mode="replicate")
        for convolution in self.convolutions:
            map = torch.relu(convolution(map))
            maps.append(map)
        return Features(skips=(maps[1], maps[3]), bottleneck=map, extra=image_of(x, self.classes))

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H + 16, W + 16) before the last layer."""
        added = {0: features.skips[1], 2: features.skips[0]}
        map = features.bottleneck
        for number, layer in enumerate(self.transposed):
            map = layer(map)
            map = torch.relu(map + added[number] if number in added else map)
        return Decoded(map=map, extra=features.extra)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → the predicted image (B, classes, H, W)."""
        whole = self.classifier(decoded.map)
        inside = whole[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        return Output(with_image(inside, decoded.extra, rectified=self.rectified), auxiliary={})
