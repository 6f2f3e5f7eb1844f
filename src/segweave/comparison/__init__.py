"""Comparison of arms from their evaluation folders alone: does one beat another, and by how much,
for new groups and new trainings?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from segweave.comparison.arms import Arm, find_reference
from segweave.comparison.decisions import LEVEL, holm, verdict
from segweave.comparison.designs import BY_FOLD, BY_RUN, Design, design_of
from segweave.comparison.joining import DOING, arm_name
from segweave.comparison.notes import exploratory_notes, limits_of, notes_of, stated_margin
from segweave.comparison.numbers import as_csv
from segweave.comparison.pairs import compare_pair
from segweave.comparison.reading import read_arms
from segweave.comparison.rendering import (
    as_latex,
    as_markdown,
    comparison_tables,
    write_text,
)
from segweave.comparison.results import (
    ArmComparison,
    ArmFacts,
    Comparison,
    Exploratory,
    ScoredRun,
)
from segweave.errors import UsageError
from segweave.evaluation.rows import Evaluation

MARGIN_AFTERWARDS = "margin given after the scores"

__all__ = [
    "ArmComparison",
    "Comparison",
    "Exploratory",
    "as_csv",
    "as_latex",
    "as_markdown",
    "compare",
    "comparison_tables",
    "holm",
    "write_text",
]


def compare(
    folders: Sequence[str | Path | Evaluation],
    reference: str,
    *,
    margin: float | None = None,
    training_groups: int | None = None,
) -> Comparison:
    """Compare every arm that evaluation folders hold with the arm `reference`, on the primary
    metric of their protocol: macro Dice, or PSNR where images were scored.

    Args:
        folders: evaluation folders (or what `evaluate` returned) of all arms, seeds and folds.
            They are joined by the digest of their recipe, those of other tools by the arm's name;
            predictions without a name take that of their folder.
        reference: the arm that the others are compared with.
        margin: a difference in it (of Dice 0 to 1) too small to matter; with it, equivalence is
            tested.
            Without it, the one that was fixed before the trainings, where every run has the same.
        training_groups: of folds, how many groups each was trained on; without it, what their
            evaluations say, and where one doesn't, all that the fold was not tested on.

    The unit is the group; groups and seeds are both samples. Everything else is exploratory. Raises
    UsageError for two recipes under one name, and for arms under different protocols, on different
    cases or known to be chosen by different rules, naming what differs; InputError for folders that
    can't be read.
    """
    if training_groups is not None and training_groups < 1:
        raise UsageError(DOING, expected="a number of groups from 1 on", found=f"{training_groups}")
    if isinstance(folders, str | Path | Evaluation):
        folders = [folders]
    arms = read_arms(folders)
    other = find_reference(arms, reference)
    if margin is not None and not 0 < margin < (1 if other.primary == "dice" else math.inf):
        between = "between 0 and 1" if other.primary == "dice" else "above 0"
        raise UsageError(
            DOING, expected=f"a margin in {other.quantity} {between}", found=f"{margin:g}"
        )
    fixed, reason = stated_margin(arms.values())
    if margin is None:
        margin = fixed
    elif margin != fixed:
        reason = ""
    manifest = other.evaluations[0].manifest
    published = manifest.protocol.startswith("published")
    designs: list[Design] = []
    results: list[ArmComparison] = []
    for arm in arms.values():
        if arm is not other:
            designs.append(design_of(arm, other, training_groups))
            results.append(
                compare_pair(arm, other, designs[-1], margin=margin, case_tests=published)
            )
    adjusted = holm({result.arm: result.p for result in results if result.p is not None})
    inside = holm({r.arm: r.p_margin for r in results if r.p_margin is not None})
    for result, design in zip(results, designs, strict=True):
        result.p_holm = adjusted.get(result.arm)
        result.p_margin_holm = inside.get(result.arm)
        if result.p_margin_holm is not None:
            result.equivalent = result.p_margin_holm < LEVEL
        result.limits = limits_of(arms[result.arm], other, design)
        if margin is not None and not reason:
            result.limits.append(MARGIN_AFTERWARDS)
        result.verdict = verdict(result, other.name, len(adjusted), margin, other.quantity)
    return Comparison(
        protocol=manifest.protocol,
        title=manifest.title,
        definition=manifest.definitions.get(other.primary, ""),
        metric=other.primary,
        quantity=other.quantity,
        kind=manifest.kind,
        classes=manifest.classes,
        reference=other.name,
        cases=len(other.groups),
        groups=len(set(other.groups.values())),
        grouped=all(e.manifest.grouped for arm in arms.values() for e in arm.evaluations),
        margin=margin,
        margin_reason=reason,
        means=BY_FOLD if any(design.by_fold for design in designs) else BY_RUN,
        facts=[
            _facts(other, results[0].reference_mean),
            *(_facts(arms[result.arm], result.mean) for result in results),
        ],
        arms=results,
        notes=notes_of(arms, other, designs, results),
        exploratory_notes=exploratory_notes(arms.values()),
        scored_runs=[scored_run for arm in arms.values() for scored_run in _scored_runs(arm)],
    )


def _facts(arm: Arm, mean: float) -> ArmFacts:
    parameters = {e.manifest.parameters for e in arm.evaluations}
    return ArmFacts(
        arm=arm.name,
        mean=mean,
        seeds=arm.seeds,
        folds=arm.folds,
        runs=len(arm.runs),
        parameters=parameters.pop() if len(parameters) == 1 else None,
        checkpoint=next(iter(arm.known("checkpoint")), None),
        part=next(iter(arm.known("part")), None),
        false_alarms=arm.alarms,
        by_rule=(arm.ruled(arm.primary), arm.asked(arm.primary)),
    )


def _scored_runs(arm: Arm) -> list[ScoredRun]:
    return [
        ScoredRun(
            arm=arm.name,
            seed=seed,
            fold=fold,
            folder=str(evaluation.folder),
            sources=evaluation.manifest.sources,
        )
        for evaluation in arm.evaluations
        for seed, fold in dict.fromkeys(
            (row.seed, row.fold)
            for row in evaluation.rows
            if arm_name(row, evaluation) in arm.names
        )
    ]
