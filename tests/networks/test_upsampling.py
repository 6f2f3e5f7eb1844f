"""Upsampling and convolution in one step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from segweave.blocks import upsampling
from segweave.blocks.conv_norm import fold_weights
from segweave.blocks.upsampling import NearestConvolution, NearestUpsampledConv2d


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_it_is_the_convolution_of_the_upsampled_map(
    before: int, after: int, height: int, width: int, few: bool
) -> None:
    torch.manual_seed(0)
    layer = NearestUpsampledConv2d(before, after).double()
    x = torch.randn(2, before, height, width, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, after, 2 * height, 2 * width, dtype=torch.float64)
    upsampled = functional.interpolate(x, scale_factor=2, mode="nearest")
    by_hand = functional.conv2d(upsampled, layer.weight, layer.bias, padding=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsampling, "_FEW_PIXELS", 1000 if few else 0)
        result = layer(x)
    assert torch.allclose(result, by_hand, atol=1e-12)
    wanted = [x, layer.weight, layer.bias]
    ours = torch.autograd.grad(result, wanted, cotangent)
    theirs = torch.autograd.grad(by_hand, wanted, cotangent)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


def test_its_tensors_and_start_values_are_those_of_a_convolution() -> None:
    torch.manual_seed(0)
    layer = NearestUpsampledConv2d(4, 3)
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 3, 3, padding=1)
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer_state, plain_state = layer.state_dict(), plain.state_dict()
    assert all(torch.equal(layer_state[name], plain_state[name]) for name in plain_state)


def test_the_batch_norm_behind_it_folds() -> None:
    torch.manual_seed(0)
    block = NearestConvolution(4, 3).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    block(x)
    block.eval()
    folded = fold_weights(block)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert torch.allclose(folded(x), block(x), atol=1e-12)
