"""Which cases are of one patient: found in their ids, or read from a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segweave.errors import InputError, UsageError
from segweave.formats.csv_table import read_lines
from segweave.formats.table import whole_name
from segweave.words import few

BY_NAME = "give a pattern that finds the patient in a name (group)"
"""How groups are given to the sets whose names of files hold them."""


class TableRow(dict[str, str]):
    """Column → cell of one row; `line` is where it ends in the file."""

    line: int = 0


def read_rows(
    path: str | Path, doing: str, columns: str = "", *, own: bool = False
) -> list[TableRow]:
    """The rows of a CSV file, names and cells without blanks around them.

    Args:
        path: the file.
        doing: what it is read for, for error messages.
        columns: the columns that it should have, for error messages.
        own: whether users write such tables; the names of the columns are then put in lower case.

    Raises InputError where it is not a CSV file, or has a column twice.
    """
    lines = read_lines(path, doing, columns)
    names = [name.lower() if own else name for name in lines[0][1]] if lines else []
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(
            doing, file=path, expected="every column once", found=repr(twice[0]), kind="layout"
        )
    rows = []
    for line, cells in lines[1:]:
        row = TableRow((name, "") for name in names if name)
        row.update((name, cell) for name, cell in zip(names, cells, strict=False) if name)
        row.line = line
        rows.append(row)
    return rows


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
    without = [id for id in ids if not found.get(id)]
    if without:
        raise UsageError(
            doing, expected=f"ids in which {pattern!r} finds a group", found=few(without)
        )
    return found


def own_group_warning(grouped: bool, how: str) -> list[str]:
    """The warning where groups are not known, so that every case is its own; `how` they would be
    given.
    """
    return [] if grouped else [f"every case is its own group; if patients have several, {how}"]


def rows_by_case(
    rows: Iterable[TableRow],
    case: str,
    columns: Sequence[str],
    *,
    doing: str,
    file: Path,
) -> dict[str, dict[str, str]]:
    """Case id (of the column `case`, file endings left out, in the form NFC) → the text in
    `columns`, "" where there is none. Raises InputError for a row without a case and for two of one
    case that differ.
    """
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        line = row.line
        cells = {name: row.get(name, "") for name in columns}
        id = whole_name(row[case]) if row.get(case) else ""
        if not id:
            raise InputError(
                doing,
                file=file,
                expected=f"a {case} in every row",
                found=f"none in line {line}",
                kind="layout",
            )
        if found.setdefault(id, cells) != cells:
            raise InputError(
                doing,
                file=file,
                expected="one row for each case, or rows that agree",
                found=f"line {line} has {cells} for {id!r}, an earlier one {found[id]}",
                remedy="remove the wrong one",
                kind="layout",
            )
    return found


def half_filled(groups: Mapping[str, str], doing: str, file: Path) -> list[InputError]:
    """The error of a table that has the group of some cases ("" where it is missing) and
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
            remedy="fill them in; a case that is alone gets a separate group",
            kind="layout",
        )
    ]
