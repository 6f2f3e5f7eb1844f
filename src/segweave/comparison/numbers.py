"""A comparison as CSV: one row per arm and endpoint, numbers in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from segweave.comparison.results import ArmComparison, Comparison, Exploratory
from segweave.words import text_cells

_PARTS = ("groups", "seeds", "rest")
_COLUMNS = (
    "arm",
    "reference",
    "endpoint",
    "metric",
    "class",
    "unit",
    "groups",
    "mean",
    "reference_mean",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "design",
    "critical",
    "p_these_weights",
    "low_these_weights",
    "high_these_weights",
    "effect_size",
    "detectable",
    "margin",
    "low90",
    "high90",
    "p_margin",
    "p_margin_holm",
    "equivalent",
    *(f"{of}share_{part}" for of in ("", "own_", "reference_") for part in _PARTS),
    "better",
    "worse",
    "failed",
    "reference_failed",
    "ruled",
    "reference_ruled",
    "verdict",
    "protocol",
    "definition",
    "cases",
    "seeds",
    "reference_seeds",
    "folds",
    "parameters",
    "reference_parameters",
)


def as_csv(comparison: Comparison) -> str:
    """One row per arm and endpoint, numbers in full."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for arm in comparison.arms:
        common = _common(comparison, arm)
        for result, cells in (
            (arm, _primary(comparison, arm)),
            *((row, _exploratory(row)) for row in arm.exploratory),
        ):
            values: Mapping[str, object] = {**result.model_dump(), **common, **cells}
            writer.writerow(text_cells(values.get(name) for name in _COLUMNS))
    return stream.getvalue()


def _common(comparison: Comparison, arm: ArmComparison) -> dict[str, object]:
    """What holds for every endpoint of an arm."""
    facts = {facts.arm: facts for facts in comparison.facts}
    ours, theirs = facts[arm.arm], facts[comparison.reference]
    return {
        "arm": arm.arm,
        "reference": comparison.reference,
        "protocol": comparison.protocol,
        "cases": comparison.cases,
        "seeds": _joined(ours.seeds),
        "reference_seeds": _joined(theirs.seeds),
        "folds": _joined(ours.folds),
        "parameters": ours.parameters,
        "reference_parameters": theirs.parameters,
    }


def _primary(comparison: Comparison, arm: ArmComparison) -> dict[str, object]:
    main = arm.main
    facts = {facts.arm: facts for facts in comparison.facts}
    cells: dict[str, object] = {
        "endpoint": "primary",
        "metric": comparison.metric,
        "definition": comparison.definition,
        "groups": len(arm.by_group),
        "margin": comparison.margin,
        "ruled": facts[arm.arm].by_rule[0],
        "reference_ruled": facts[comparison.reference].by_rule[0],
        "design": main.design if main else "groups, for these weights",
        "critical": main.critical if main else None,
        "p_these_weights": arm.weights.p,
        "low_these_weights": arm.weights.low,
        "high_these_weights": arm.weights.high,
    }
    for prefix, shares in (
        ("", arm.shares),
        ("own_", arm.own_shares),
        ("reference_", arm.reference_shares),
    ):
        for part in _PARTS if shares else ():
            cells[f"{prefix}share_{part}"] = getattr(shares, part)
    return cells


def _exploratory(row: Exploratory) -> dict[str, object]:
    return {"endpoint": "exploratory", "class": row.class_name}


def _joined(numbers: list[int] | list[int | None]) -> str:
    return " ".join(str(number) for number in numbers if number is not None)
