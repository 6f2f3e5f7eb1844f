"""DWUNet: the UNet with separable convolutions, which no released code defines."""

from __future__ import annotations

import torch
from torch import nn

from segweave.author_weights import HasReleasedNames
from segweave.networks import create_network


def test_it_is_the_unet_with_separable_convolutions() -> None:
    separable = create_network("dwunet", in_channels=3, classes=1)
    plain = create_network("unet", in_channels=3, classes=1)
    assert separable.channels == plain.channels
    assert separable.divisor == plain.divisor
    assert not isinstance(separable, HasReleasedNames)
    kernels = [
        layer
        for layer in separable.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    assert len(kernels) == 18
    assert all(layer.groups == layer.in_channels == layer.out_channels for layer in kernels)


def test_a_separable_pair_is_one_convolution_of_rank_one() -> None:
    torch.manual_seed(0)
    block = create_network("dwunet", in_channels=3, width=4).encoder[0].double().eval()
    depthwise, pointwise = block[0].weight, block[1][0].weight
    kernel = pointwise * depthwise.transpose(0, 1)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    by_hand = block[1][2](block[1][1](torch.nn.functional.conv2d(x, kernel, padding=1)))
    assert torch.allclose(block[1](block[0](x)), by_hand, atol=1e-12)
