"""Which cases are of one patient: found in their ids, or told by a table without contradictions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segweave.datasets.base import few
from segweave.errors import InputError, UsageError
from segweave.formats.table import case_name


def groups_by(ids: Sequence[str], pattern: str | None, doing: str) -> dict[str, str]:
    """Case id → group: what `pattern`, a regular expression, finds in the id (the first bracket
    that takes part, or the whole match); without one every case is its own. Raises UsageError where
    it finds nothing.
    """
    if pattern is None:
        return {id: id for id in ids}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            doing, expected="a regular expression as group", found=f"{pattern!r}: {error}"
        ) from error
    matches = {id: compiled.search(id) for id in ids}
    found = {
        id: next((text for text in match.groups() if text is not None), match[0])
        for id, match in matches.items()
        if match is not None
    }
    odd = [id for id in ids if not found.get(id)]
    if odd:
        raise UsageError(doing, expected=f"ids in which {pattern!r} finds a group", found=few(odd))
    return found


def own_group_warning(grouped: bool) -> list[str]:
    """What is to be said where groups are not known, so that every case is its own."""
    return (
        [] if grouped else ["every case is its own group; if patients have several, say so (group)"]
    )


def rows_by_case(
    rows: Iterable[Mapping[str, str | None]],
    case: str,
    columns: Sequence[str],
    *,
    doing: str,
    file: Path,
) -> dict[str, dict[str, str]]:
    """Case id (of the column `case`, file endings left out) → the text in `columns`, "" where there
    is none. Raises InputError for a row without a case and for two of one case that differ.
    """
    found: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, 2):
        told = {name: (row.get(name) or "").strip() for name in columns}
        id = case_name((row.get(case) or "").strip()) if (row.get(case) or "").strip() else ""
        if not id and not any(told.values()):
            continue  # spreadsheets leave empty lines at the end
        if not id:
            raise InputError(
                doing,
                file=file,
                expected=f"a {case} in every row",
                found=f"none in line {line}",
                kind="layout",
            )
        if found.setdefault(id, told) != told:
            raise InputError(
                doing,
                file=file,
                expected="one row for each case, or rows that agree",
                found=f"line {line} says {told} of {id!r}, an earlier one {found[id]}",
                remedy="remove the wrong one",
                kind="layout",
            )
    return found


def half_filled(groups: Mapping[str, str], doing: str, file: Path) -> list[InputError]:
    """The error of a table that says of some cases which group they are of ("": it does not) and
    not of the others; [] for all or none.
    """
    lost = [id for id, group in groups.items() if not group]
    if not lost or len(lost) == len(groups):
        return []
    return [
        InputError(
            doing,
            file=file,
            expected="a group in every row, or in none",
            found=f"none for {len(lost)} of {len(groups)} cases: {few(lost)}",
            remedy="fill them in; a case that is alone gets a group of its own",
            kind="layout",
        )
    ]
