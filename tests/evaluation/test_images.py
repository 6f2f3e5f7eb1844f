"""Predicted images: scored in the unit of their values, between the values that count."""

from __future__ import annotations

import numpy as np
import pytest

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.evaluation import get_protocol
from tests.evaluation.test_families import score, values


def test_images_are_scored_between_the_lowest_and_the_highest_value_that_count() -> None:
    target = TargetSpec(kind="image", names=("CT",), unit="HU", range=(-160.0, 240.0))
    truth = np.random.default_rng(0).integers(-100, 200, (2, 1, 16, 12)).astype(np.int16)
    noisy = truth + np.float32(20)
    found = values(score("clean", noisy, truth, target=target, stack="space"))
    protocol = get_protocol("clean", target=target)
    assert {metric for _, metric in found} == set(protocol.definitions)
    assert found["CT", "rmse"] == pytest.approx(20)
    assert found["CT", "psnr"] == pytest.approx(20 * np.log10(400 / 20))
    # What is beyond the range is equal, wherever it is; and equal images have no finite PSNR.
    high = np.full_like(truth, 300)
    same = score("clean-images", high + np.float32(500), high, target=target, stack="space")
    assert {(s.value, s.status) for s in same if s.metric == "psnr"} == {(None, "failed")}
    assert {s.value for s in same if s.metric == "rmse"} == {0}
    with pytest.raises(UsageError, match="expected: clean-images"):
        score("penalised", noisy, truth, target=target, stack="space")
