"""Joins evaluations by arm: by the digest of their recipe where they have one, else by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segweave.errors import UsageError
from segweave.evaluation.rows import Evaluation, Row
from segweave.recipes import dotted_differences

DOING = "comparing arms"
_SHOWN = 8


def arm_name(row: Row, evaluation: Evaluation) -> str:
    """The name of a row's arm; without one, the name of the evaluation folder."""
    return row.arm or Path(evaluation.folder).resolve().name


def labels_of(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Arm name → the label that its arm has in the comparison.

    Names with one recipe digest are one arm, which has the first of them as its label. Predictions
    of other tools have no digest: their name decides. Raises UsageError where one name has two
    digests, naming the fields in which the recipes differ.
    """
    first_of: dict[str, Evaluation] = {}
    label_of_digest: dict[str, str] = {}
    labels: dict[str, str] = {}
    for evaluation in evaluations:
        digest = evaluation.manifest.recipe_digest
        if digest is None:
            continue
        for name in dict.fromkeys(arm_name(row, evaluation) for row in evaluation.rows):
            other = first_of.setdefault(name, evaluation)
            if other.manifest.recipe_digest != digest:
                raise _two_recipes(name, other, evaluation)
            labels[name] = label_of_digest.setdefault(digest, name)
    for evaluation in evaluations:
        for row in evaluation.rows:
            name = arm_name(row, evaluation)
            labels.setdefault(name, name)
    return labels


def _two_recipes(name: str, one: Evaluation, other: Evaluation) -> UsageError:
    a, b = one.manifest.recipe, other.manifest.recipe
    differing = dotted_differences(a, b) if a is not None and b is not None else {}
    lines = [f"{key}: {_short(x)} and {_short(y)}" for key, (x, y) in differing.items()]
    more = [f"... {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return UsageError(
        f"{DOING}: two recipes under one name",
        expected=f"one recipe for all runs of the arm {name!r} (seed and fold may differ)",
        found="\n    ".join([f"{one.folder} and {other.folder} differ in", *lines[:_SHOWN], *more]),
        remedy="leave one of them out, or give one of the recipes another label (arm:) and "
        "train it again",
    )


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return repr(value["name"])
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
