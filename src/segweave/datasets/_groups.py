"""Which cases are of one patient: found in their ids, or read from a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segweave.errors import InputError, UsageError
from segweave.formats.guard import check_file
from segweave.formats.table import case_name
from segweave.words import few


def read_rows(path: str | Path, doing: str, columns: str = "") -> list[dict[str, str]]:
    """The rows of a CSV file, names and cells without blanks around them; a table with semicolons
    is read too.

    Raises InputError where it is not a CSV file, with the `columns` that it should have.
    """
    file = Path(path)
    check_file(file, doing)
    try:
        text = file.read_text(encoding="utf-8-sig")
        head = text[:4096]
        separator = ";" if head.count(";") > head.count(",") else ","
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            doing,
            file=file,
            expected=columns or "a CSV file",
            found=(str(error) or type(error).__name__)[:150],
            kind="layout",
        ) from error
    return [
        {str(name).strip(): str(cell or "").strip() for name, cell in row.items() if name}
        for row in rows
    ]


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


def own_group_warning(grouped: bool) -> list[str]:
    """The warning where groups are not known, so that every case is its own."""
    text = "every case is its own group; if patients have several, give the option group"
    return [] if grouped else [text]


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
        cells = {name: (row.get(name) or "").strip() for name in columns}
        id = case_name((row.get(case) or "").strip()) if (row.get(case) or "").strip() else ""
        if not id and not any(cells.values()):
            continue  # spreadsheets leave empty lines at the end
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
