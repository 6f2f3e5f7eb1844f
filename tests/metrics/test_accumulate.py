"""Empty masks by named policies, and scores collected over many images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segweave.errors import UsageError
from segweave.metrics import Accumulator, diagonal, get_policy
from segweave.metrics.overlap import dice
from segweave.metrics.surface import hausdorff95

SOME = np.zeros((4, 5, 6), np.uint8)
SOME[1:3, 1:4, 1:4] = 1
NONE = np.zeros_like(SOME)
SPACING = (3.0, 1.0, 2.0)
DIAGONAL = math.sqrt((3 * 3) ** 2 + 4**2 + (5 * 2) ** 2)
# policy → (overlap, distance) where prediction, reference, both are empty
RULES = {
    "nan": {"prediction": (0, None), "reference": (0, None), "both": (None, None)},
    "penalise": {"prediction": (0, DIAGONAL), "reference": (0, DIAGONAL), "both": (1, 0)},
    "published": {"prediction": (0, 0), "reference": (1, 0), "both": (0, 0)},
}
PAIRS = {"prediction": (NONE, SOME), "reference": (SOME, NONE), "both": (NONE, NONE)}


def test_the_diagonal() -> None:
    assert diagonal(SOME.shape, SPACING) == pytest.approx(DIAGONAL)
    assert diagonal((4, 5), None) == 5


@pytest.mark.parametrize("policy", sorted(RULES))
@pytest.mark.parametrize("lack", sorted(PAIRS))
def test_what_empty_masks_score(policy: str, lack: str) -> None:
    found = Accumulator((1,), ("dice", "hd95"), policy)
    found.add(*PAIRS[lack], SPACING)
    assert found.empties[1] == {lack: 1}
    for metric, wanted in zip(("dice", "hd95"), RULES[policy][lack], strict=True):
        value = found.mean(metric)[1]
        assert found.defined(metric)[1] == (wanted is not None)
        assert value == pytest.approx(math.nan if wanted is None else wanted, nan_ok=True)


def test_means_over_images_and_classes() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers(0, 3, (5, 2, 3, 8, 8)).astype(np.uint8)
    found = Accumulator((1, 2), ("dice", "hd95", "iou"))
    halves = [Accumulator((1, 2), ("dice", "hd95", "iou")) for _ in range(2)]
    for number, (p, r) in enumerate(pairs):
        found.add(p, r, SPACING)
        halves[number % 2].add(p, r, SPACING)
    joined = halves[0] + halves[1]
    for c in (1, 2):
        wanted = np.mean([dice(p == c, r == c) for p, r in pairs])
        assert found.mean("dice")[c] == pytest.approx(wanted)
        assert joined.mean("dice")[c] == pytest.approx(wanted)
        wanted = np.mean([hausdorff95(p == c, r == c, SPACING) for p, r in pairs])
        assert found.mean("hd95")[c] == pytest.approx(wanted)
    assert found.macro("iou") == pytest.approx(np.mean(list(found.mean("iou").values())))
    assert joined.pairs == found.pairs == 5
    assert not found.empties[1]


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="penalise"):
        get_policy("penalize")
    with pytest.raises(UsageError, match="hd95"):
        Accumulator((1,), ("hd59",))
    with pytest.raises(UsageError, match="spacing of 3"):
        Accumulator((1,)).add(SOME, SOME, (1.0, 1.0))
    with pytest.raises(UsageError, match="joining"):
        Accumulator((1,)) + Accumulator((2,))
