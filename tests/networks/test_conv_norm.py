"""The shared block of convolution and batch norm."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segweave.blocks.conv_norm import ConvNorm, relu


@given(
    kernel=st.sampled_from([1, 3, 5, (1, 3), (7, 1)]),
    dilation=st.sampled_from([1, 2, (1, 3)]),
    height=st.integers(8, 12),
)
def test_at_stride_one_the_size_stays(
    kernel: int | tuple[int, int], dilation: int | tuple[int, int], height: int
) -> None:
    block = ConvNorm(2, 3, kernel, dilation=dilation).eval()
    assert block(torch.randn(1, 2, height, 9)).shape == (1, 3, height, 9)


def test_it_is_convolution_norm_and_activation() -> None:
    torch.manual_seed(0)
    block = ConvNorm(2, 3, 3, stride=2, groups=1, bias=True, eps=1e-3, activation=relu).eval()
    assert list(block.state_dict())[:3] == ["0.weight", "0.bias", "1.weight"]
    assert block[1].eps == 1e-3
    x = torch.randn(1, 2, 8, 8)
    plain = nn.Sequential(*block)
    assert torch.equal(block(x), plain(x))
    assert block(x).shape == (1, 3, 4, 4)
    assert (block(x) >= 0).all()
    assert len(ConvNorm(2, 3, 1)) == 2
    assert ConvNorm(2, 3, 1)[0].bias is None


def test_a_transposed_one_doubles_the_size() -> None:
    block = ConvNorm(2, 3, 2, stride=2, transposed=True).eval()
    assert block(torch.randn(1, 2, 4, 5)).shape == (1, 3, 8, 10)
