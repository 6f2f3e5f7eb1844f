"""1×1 kernels that belong to an image, not to the network: LDNet's lesion-aware dynamic kernel."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

GROUPS = 16


def apply_kernels(kernels: Tensor, x: Tensor) -> Tensor:
    """Kernels (B, classes, C) and the maps (B, C, H, W) → logits (B, classes, H, W)."""
    batch, classes, _ = kernels.shape
    return (kernels @ x.flatten(2)).reshape(batch, classes, *x.shape[-2:])


class FirstKernel(nn.Module):
    """The first kernels, from the image as a whole: group norm, ReLU, mean over space, linear
    layer, (B, C, H, W) → (B, classes, width).
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.linear = nn.Linear(channels, classes * width)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, classes, width)."""
        kernels: Tensor = self.linear(self.norm(x).relu().mean(dim=(2, 3)))
        return kernels.reshape(x.shape[0], self.classes, -1)


class KernelUpdate(nn.Module):
    """Kernels changed by the features of what they found (Zhang et al., LDNet, Section 2.2): the
    map, summed over space with the prediction as weights, and the kernel are each cut into an
    input and an output part; the product of the input parts gives the gates with which the output
    parts are added. A last linear layer, layer norm and ReLU give the new kernels.

    Sums over space, not means, as released: their size grows with that of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pred_transform_layer = nn.Linear(width, 2 * width)
        self.head_transform_layer = nn.Linear(width, 2 * width)
        self.pred_gate = nn.Linear(width, width)
        self.head_gate = nn.Linear(width, width)
        self.pred_norm_in = nn.LayerNorm(width)
        self.head_norm_in = nn.LayerNorm(width)
        self.pred_norm_out = nn.LayerNorm(width)
        self.head_norm_out = nn.LayerNorm(width)
        self.fc_layer = nn.Linear(width, width)
        self.fc_norm = nn.LayerNorm(width)

    def forward(self, kernels: Tensor, logits: Tensor, x: Tensor) -> Tensor:
        """Kernels (B, classes, C), the logits (B, classes, h, w) that they gave, and the map (B, C,
        H, W) that the new ones will be applied to → (B, classes, C).
        """
        raised = interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
        found = raised.sigmoid().flatten(2) @ x.flatten(2).transpose(1, 2)
        found_in, found_out = self.pred_transform_layer(found).chunk(2, dim=-1)
        kernel_in, kernel_out = self.head_transform_layer(kernels).chunk(2, dim=-1)
        product = found_in * kernel_in
        found_gate = torch.sigmoid(self.pred_norm_in(self.pred_gate(product)))
        kernel_gate = torch.sigmoid(self.head_norm_in(self.head_gate(product)))
        mixed = found_gate * self.pred_norm_out(found_out)
        mixed = mixed + kernel_gate * self.head_norm_out(kernel_out)
        return cast(Tensor, self.fc_norm(self.fc_layer(mixed)).relu())
