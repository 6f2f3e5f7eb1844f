"""The parts of MT-UNet's mixed block against a plain reading of what they compute, position by
position.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segweave.blocks.mixed_attention import (
    ExternalAttention,
    LocalGlobalAttention,
    MixedStage,
    join_windows,
    pad_to_windows,
    softmax,
    split_windows,
)

sides = st.integers(2, 13)


def tokens(height: int, width: int, channels: int = 8, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(batch, height, width, channels, generator=generator, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(sides, sides)
def test_padding_fills_the_corner_alone(height: int, width: int) -> None:
    x = tokens(height, width)
    padded = pad_to_windows(x)
    rows, columns = -(-height // 4) * 4, -(-width // 4) * 4
    assert padded.shape == (2, rows, columns, 8)
    assert torch.equal(padded[:, :height, :width], x)
    assert not padded[:, height:, :width].any()
    assert not padded[:, :height, width:].any()
    below, right = rows - height, columns - width
    if below and right:
        assert torch.equal(padded[:, height:, width:], x[:, -below:, -right:])


def test_padding_keeps_the_gradient() -> None:
    x = tokens(7, 7).requires_grad_()
    pad_to_windows(x).sum().backward()
    expected = torch.ones_like(x)
    expected[:, -1, -1] = 2
    assert x.grad is not None
    assert torch.equal(x.grad, expected)


@given(st.integers(1, 3), st.integers(1, 3))
def test_windows_are_cut_and_joined(rows: int, columns: int) -> None:
    x = tokens(4 * rows, 4 * columns)
    windows = split_windows(x)
    assert windows.shape == (2, rows, columns, 16, 8)
    last = windows[:, -1, -1].reshape(2, 4, 4, 8)
    assert torch.equal(last, x[:, -4:, -4:])
    assert torch.equal(join_windows(windows), x)


def slow_axes(block: LocalGlobalAttention, x: Tensor) -> Tensor:
    """Row and column attention, one position after the other."""
    query, key, value = block.axis_query(x), block.axis_key(x), block.axis_value(x)
    batch, height, width, _ = x.shape
    result = torch.zeros_like(value)
    for b in range(batch):
        for r in range(height):
            for c in range(width):
                for line in ([(r, k) for k in range(width)], [(k, c) for k in range(height)]):
                    score = torch.stack(
                        [
                            query[b, r, c] @ key[b, i, j]
                            - (block.decay[0] * ((i - r) ** 2 + (j - c) ** 2) - 0.7)
                            for i, j in line
                        ]
                    )
                    for weight, (i, j) in zip(score.softmax(0), line, strict=True):
                        result[b, r, c] += weight * value[b, i, j]
    return result


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(-0.3, 2))
def test_axes_equal_a_loop_over_positions(rows: int, columns: int, decay: float) -> None:
    torch.manual_seed(rows * 10 + columns)
    block = LocalGlobalAttention(8).double()
    with torch.no_grad():
        block.decay.fill_(decay)
        x = tokens(rows, columns)
        assert torch.allclose(block._along_axes(x), slow_axes(block, x), atol=1e-12)


def slow_windows(block: LocalGlobalAttention, window: Tensor) -> Tensor:
    """(16, C): eight heads, one after the other."""
    query = block.window_query(window)
    key = block.window_key(window)
    value = block.window_value(window)
    width = window.shape[-1] // 8
    heads = [
        (query[:, s] @ key[:, s].T / math.sqrt(width)).softmax(-1) @ value[:, s]
        for s in (slice(h * width, (h + 1) * width) for h in range(8))
    ]
    return block.window_output(torch.cat(heads, -1))


def upsampled(x: Tensor) -> Tensor:
    """(rows, columns, C) to four times the size, bilinear, corner on corner."""

    def matrix(n: int) -> Tensor:
        m = torch.zeros(4 * n, n, dtype=x.dtype)
        for i in range(4 * n):
            at = i * (n - 1) / (4 * n - 1)
            low = min(int(at), n - 1)
            m[i, low] += 1 - (at - low)
            m[i, min(low + 1, n - 1)] += at - low
        return m

    return torch.einsum("ir,jc,rcd->ijd", matrix(x.shape[0]), matrix(x.shape[1]), x)


@settings(max_examples=8, deadline=None)
@given(sides, sides)
def test_local_global_attention_step_by_step(height: int, width: int) -> None:
    torch.manual_seed(height * 20 + width)
    block = LocalGlobalAttention(16).double()
    x = tokens(height, width, 16, batch=1)
    with torch.no_grad():
        windows = split_windows(pad_to_windows(x))[0]
        local = torch.stack([torch.stack([slow_windows(block, w) for w in row]) for row in windows])
        one = torch.stack(
            [
                torch.stack([block.token_weights(w.mean(0)).softmax(0) @ w for w in row])
                for row in local
            ]
        )
        spread = upsampled(slow_axes(block, one[None])[0])
        joined = torch.cat([spread, join_windows(local[None])[0]], -1)
        expected = torch.einsum("hwd,cd->hwc", joined, block.join.weight[:, :, 0, 0])
        expected = (expected + block.join.bias)[:height, :width]
        assert torch.allclose(block(x)[0], expected, atol=1e-11)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4))
def test_external_attention_head_by_head(height: int, width: int) -> None:
    torch.manual_seed(height * 10 + width)
    block = ExternalAttention(16).double()
    x = tokens(height, width, 16)
    with torch.no_grad():
        wide = block.query(x).reshape(2, height * width, 64)
        heads = []
        for head in range(32):
            slots = block.to_slots(wide[..., head * 2 : head * 2 + 2]).softmax(1)
            heads.append(block.from_slots(slots / (1e-9 + slots.sum(-1, keepdim=True))))
        expected = block.output(torch.cat(heads, -1)).reshape(x.shape)
        assert torch.allclose(block(x), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_softmax_of_half_precision_is_float32(dtype: torch.dtype) -> None:
    weights = softmax(torch.randn(2, 1000).to(dtype), dim=1)
    assert weights.dtype is torch.float32
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert softmax(torch.zeros(2, dtype=torch.float64), dim=0).dtype is torch.float64


def test_a_stage_gives_the_map_back_in_its_shape() -> None:
    x = torch.randn(2, 8, 5, 6)
    assert MixedStage(8)(x).shape == x.shape
