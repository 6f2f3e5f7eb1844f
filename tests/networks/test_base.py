"""The size rule and the mask that a network reads back."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segweave.errors import UsageError
from segweave.networks import Output, check_size, mask_of

sides = st.integers(1, 200)


@given(sides, sides, st.integers(1, 40), st.integers(1, 90))
def test_the_size_that_an_error_proposes_works(
    height: int, width: int, divisor: int, smallest: int
) -> None:
    rule = {"divisor": divisor, "smallest": smallest}
    works = min(height, width) >= smallest and height % divisor == width % divisor == 0
    if works:
        check_size("network", (height, width), **rule)
        return
    with pytest.raises(UsageError) as raised:
        check_size("network", (height, width), **rule)
    proposed = re.search(r"(\d+)×(\d+)", raised.value.remedy or "")
    assert proposed is not None
    check_size("network", (int(proposed[1]), int(proposed[2])), **rule)


@given(sides, sides)
def test_only_the_fixed_sizes_work(height: int, width: int) -> None:
    fixed = (64, (96, 128))
    if (height, width) in {(64, 64), (96, 128)}:
        check_size("network", (height, width), fixed=fixed)
        return
    with pytest.raises(UsageError, match="64×64 or 96×128"):
        check_size("network", (height, width), fixed=fixed)


def test_the_nearest_fixed_size_is_proposed() -> None:
    with pytest.raises(UsageError) as raised:
        check_size("network", (100, 100), fixed=(64, (96, 128)))
    assert raised.value.remedy == "resize or pad to 96×128"


def test_a_mask_is_any_foreground() -> None:
    def mask(values: list[list[float]], exclusive: bool) -> list[float]:
        logits = torch.tensor(values)[None, :, None, :].requires_grad_()
        result = mask_of(Output(logits, {}), exclusive=exclusive)
        assert result.shape == (1, 1, 1, len(values[0]))
        assert not result.requires_grad
        return result.flatten().tolist()

    assert mask([[-1.0, 0.5, 0.0]], exclusive=False) == [0, 1, 0]
    assert mask([[2.0, -3, -3], [1.0, -4, -2], [0.0, -9, -9]], exclusive=True) == [0, 0, 1]
    assert mask([[-1.0, -1, 1], [-1.0, 2, 1]], exclusive=False) == [0, 1, 1]
