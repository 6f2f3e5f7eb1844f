"""Finds labels that can be read and are unusual: all background, all foreground, in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segweave.checking.report import Problem
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.validate_case import scattered
from segweave.words import few


def unusual_labels(
    case: Case, target: TargetSpec, mask_of: Callable[[int], Path | None]
) -> list[Problem]:
    """Labels that are background throughout, masks that are all foreground, and numbers of objects
    that cover several pieces (as in a mask without numbers). `mask_of` gives the file
    of a slice's label.
    """
    problems = []
    if case.label is None:
        return []
    if not case.label.any():
        problems.append(Problem("empty-label", "note", "no pixel is labelled", case=case.id))
    # A slice of a volume may be inside of what is labelled.
    whole = case.stack != "space" or case.label.all()
    full = [k for k, plane in enumerate(case.label) if plane.all()] if whole else []
    if target.kind == "binary" and full:
        problems.append(
            Problem(
                "full-label",
                "warning",
                found="every pixel is labelled"
                + (f" in {len(full)} slices" if case.slices > 1 else ""),
                expected="background beside the foreground",
                case=case.id,
                file=mask_of(full[0]),
            )
        )
    if numbers := scattered(case):
        problems.append(
            Problem(
                "unusual",
                "warning",
                found=f"numbers that cover several pieces each: {few([str(n) for n in numbers])}",
                expected="a number for every object",
                case=case.id,
                file=mask_of(0),
            )
        )
    return problems
