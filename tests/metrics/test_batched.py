"""Dice of batches in torch equals that of the arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segweave.errors import InputError
from segweave.metrics import confusion
from segweave.metrics.batched import RunningDice, batched_counts, batched_dice


def test_equals_the_counts_of_arrays() -> None:
    generator = np.random.default_rng(0)
    p, r = generator.integers(0, 5, (2, 3, 6, 7))
    p[1][p[1] == 2], r[1][r[1] == 2] = 0, 0
    r[0, 0, 0] = 255  # nobody's
    found = batched_dice(torch.from_numpy(p), torch.from_numpy(r), 4)
    assert found.shape == (3, 4)
    for k in range(3):
        for c, counts in confusion(p[k], r[k], (1, 2, 3)).items():
            assert found[k, c].item() == pytest.approx(counts.dice, nan_ok=True)
    assert math.isnan(found[1, 2])


def test_a_running_dice_joins_all_pixels() -> None:
    generator = np.random.default_rng(1)
    p, r = (torch.from_numpy(m) for m in generator.integers(0, 3, (2, 4, 5, 5)).astype(np.uint8))
    running = RunningDice(3)
    assert running.dice() == {}
    running.add(p[:1], r[:1])
    running.add(p[1:], r[1:])
    for c, wanted in confusion(p.numpy(), r.numpy(), (1, 2)).items():
        assert running.dice((1, 2))[c] == pytest.approx(wanted.dice)
    assert sorted(running.dice()) == [0, 1, 2]


def test_wrong_shapes() -> None:
    with pytest.raises(InputError, match="one shape"):
        batched_counts(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), 2)


@pytest.mark.gpu
def test_on_a_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    labels = torch.randint(0, 3, (2, 8, 8), device="cuda")
    assert batched_dice(labels, labels, 3).device.type == "cuda"
