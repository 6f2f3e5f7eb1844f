"""Texts that tables and pages of evaluations share."""

from __future__ import annotations

from collections.abc import Iterable

from segweave.evaluation.rows import Evaluation


def scored_again(evaluations: Iterable[Evaluation]) -> list[str]:
    """A note where test cases had been scored more than once under the protocol, else nothing."""
    notes = []
    for evaluation in evaluations:
        manifest = evaluation.manifest
        times = sum(manifest.tested.values())
        if times > 1:
            arm = ", ".join(name or "prediction" for name in manifest.arms)
            seeds = "".join(f", seed {seed}" for seed in manifest.seeds)
            folds = "".join(f", fold {fold}" for fold in manifest.folds if fold)
            names = [f"{name} {count}×" for name, count in manifest.tested.items()]
            notes.append(f"{arm}{seeds}{folds}: {times} times ({', '.join(names)})")
    if not notes:
        return []
    return [
        f"Test cases had been scored more than once under this protocol: {'; '.join(notes)}. What "
        "was chosen after the first time was chosen on test cases."
    ]
