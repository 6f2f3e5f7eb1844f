"""What is scored where a side lacks the class, by named policies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segweave.errors import UsageError
from segweave.metrics import LabelPair, diagonal, get_policy
from segweave.registry import metrics

SOME = np.zeros((4, 5, 6), np.uint8)
SOME[1:3, 1:4, 1:4] = 1
NONE = np.zeros_like(SOME)
SPACING = (3.0, 1.0, 2.0)
DIAGONAL = math.sqrt((3 * 3) ** 2 + 4**2 + (5 * 2) ** 2)
FAILED = (None, "failed")
# policy → (overlap, distance) where prediction, reference, both lack the class
RULES: dict[str, dict[str, tuple[Any, Any]]] = {
    "clean": {
        "prediction": ((0, "scored"), FAILED),
        "reference": (None, None),
        "both": (None, None),
    },
    "penalise": {
        "prediction": ((0, "rule"), (DIAGONAL, "rule")),
        "reference": ((0, "rule"), (DIAGONAL, "rule")),
        "both": ((1, "rule"), (0, "rule")),
    },
    "published": {
        "prediction": ((0, "rule"), (0, "rule")),
        "reference": ((1, "rule"), (0, "rule")),
        "both": ((0, "rule"), (0, "rule")),
    },
    "glas": {
        "prediction": ((0, "rule"), FAILED),
        "reference": ((0, "rule"), FAILED),
        "both": ((1, "rule"), (0, "rule")),
    },
    "formula": {
        "prediction": ((0, "rule"), FAILED),
        "reference": ((0, "rule"), FAILED),
        "both": ((0, "rule"), FAILED),
    },
}
PAIRS = {"prediction": (NONE, SOME), "reference": (SOME, NONE), "both": (NONE, NONE)}


def test_the_diagonal() -> None:
    assert diagonal(SOME.shape, SPACING) == pytest.approx(DIAGONAL)
    assert diagonal((4, 5), None) == 5


@pytest.mark.parametrize("policy", sorted(RULES))
@pytest.mark.parametrize("lacks", sorted(PAIRS))
def test_what_empty_masks_score(policy: str, lacks: str) -> None:
    pair = LabelPair(*PAIRS[lacks], (1,), SPACING)
    assert pair.missing(1) == lacks
    for name, wanted in zip(("dice", "hd95"), RULES[policy][lacks], strict=True):
        card = metrics.card(name)
        outcome = get_policy(policy).outcome(
            card, pair.value(card, 1), pair.missing(1), SOME.shape, SPACING
        )
        if wanted is None:
            assert outcome is None
        else:
            assert outcome is not None
            assert outcome == (pytest.approx(wanted[0]), wanted[1])


def test_what_the_formula_leaves_undefined() -> None:
    def outcome(policy: str, name: str, lacks: Any) -> Any:
        card = metrics.card(name)
        return get_policy(policy).outcome(card, math.nan, lacks, SOME.shape, SPACING)

    # Precision where nothing was predicted; a loss-like metric without a value is not best.
    assert outcome("clean", "precision", "prediction") == (0, "scored")
    assert outcome("clean", "rmse", "prediction") == (None, "failed")
    outcome_of_infinity = get_policy("clean").outcome(
        metrics.card("psnr"), math.inf, None, SOME.shape, SPACING
    )
    assert outcome_of_infinity == (None, "failed")
    # Specificity of an image that is all foreground.
    assert outcome("clean", "specificity", None) == (None, "failed")
    assert outcome("formula", "specificity", None) == (0, "scored")


def test_an_unknown_policy() -> None:
    with pytest.raises(UsageError, match="penalise"):
        get_policy("penalize")
