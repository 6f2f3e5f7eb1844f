"""A plug-in: a small network that reads its own last mask."""

import torch
from torch import nn

from segweave.networks.base import Decoded, Features, Feedback, Output, SegmentationNetwork
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="toy-feedback", title="Two convolutions and the last mask", entry="ToyFeedback"
)


def bright(image):
    """The first mask: brighter than the mean."""
    grey = image.mean(1, keepdim=True)
    return (grey > grey.mean((-2, -1), keepdim=True)).to(image.dtype)


class ToyFeedback(SegmentationNetwork):
    def __init__(self, in_channels=1, classes=1, width=4):
        super().__init__()
        self.in_channels, self.classes, self.stride, self.divisor = in_channels, classes, 1, 2
        self.channels = {
            "skips": (),
            "bottleneck": (width,),
            "decoder": (width,),
            "output": (classes,),
        }
        self.feedback = Feedback("mask", bright, rounds=2)
        self.first = nn.Conv2d(in_channels + 1, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def encode(self, x, **inputs):
        mask = inputs["mask"]
        mask = mask[:, 0] if mask.ndim == 5 else mask
        self.check_image(x, mask=mask)
        joined = torch.cat([x, mask], 1)
        return Features((), torch.relu(self.first(joined)), {})

    def decode(self, features):
        return Decoded(features.bottleneck, {})

    def head(self, decoded, size, auxiliary):
        logits = self.classifier(decoded.map)
        return Output(logits, {"half": logits / 2} if auxiliary else {})
