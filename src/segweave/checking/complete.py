"""Sets a source beside what it should hold in number, and its splits beside its groups."""

from __future__ import annotations

from collections.abc import Sequence

from segweave.checking.probe import Look
from segweave.checking.report import Problem
from segweave.checking.survey import Survey
from segweave.data.splits import check_splits
from segweave.datasets.base import short_of
from segweave.errors import SegweaveError
from segweave.registry import datasets


def short(found: Survey, looks: Sequence[Look]) -> list[Problem]:
    """What is missing of the counts on the data set's card. Cases that can't be read are there, but
    nobody knows their slices.
    """
    card = datasets.cards().get(found.name)
    if card is None:
        return []
    groups = found.plan.groups() | {look.id: look.group for look in looks}
    counts = {
        "cases": len(groups),
        "groups": len(set(groups.values())),
        "slices": sum(look.slices for look in looks),
    }
    known = {
        what: wanted
        for what, wanted in card.expected.items()
        if what != "slices" or len(looks) == len(found.plan.items)
    }
    return [Problem("missing", "error", found=text) for text in short_of(known, counts)]


def unsplit(found: Survey, looks: Sequence[Look]) -> list[Problem]:
    """Splits that `prepare` refuses, and cases that no split has."""
    groups = found.plan.groups() | {look.id: look.group for look in looks}
    try:
        splits = found.plan.splits(groups)
        check_splits(splits, groups)
    except SegweaveError as error:
        return [
            Problem(
                "split",
                "error",
                found=f"{error.doing}: {error.found}" if error.found else str(error),
                expected=error.expected or "",
                remedy=error.remedy or "",
            )
        ]
    inside = {id for parts in splits.values() for ids in parts.values() for id in ids}
    return [
        Problem("split", "warning", found="a case in no part of any split", case=look.id)
        for look in looks
        if splits and look.id not in inside
    ]
