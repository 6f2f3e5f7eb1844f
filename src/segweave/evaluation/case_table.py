"""The table of cases that goes with files to score: which case, group, part, arm they belong to."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from segweave.data.case import Stack
from segweave.errors import InputError, nearest
from segweave.evaluation.score_cases import problem_list
from segweave.formats.csv_table import other_word, read_lines

_DOING = "reading the table of cases"
_COLUMNS = ("case", "group", "part", "stack", "arm", "seed", "fold", "id", "slice")


@dataclass(frozen=True)
class Entry:
    """A row of the table of cases. `id` is the case of the file where that has another name,
    `slice` the index of the file's slice in that case.
    """

    group: str | None = None
    part: str = ""
    stack: Stack | None = None
    arm: str | None = None
    seed: int | None = None
    fold: int | None = None
    id: str | None = None
    slice: int | None = None


def read_entries(path: str | Path) -> dict[str, Entry]:
    """Name of a file, as it is written in the column `case` (normalised to NFC) → its row.

    Columns are separated by commas, semicolons or tabs; empty rows are passed over. Raises
    InputError with everything that is wrong, by line.
    """
    file = Path(path)
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    header: list[str] = []
    for line, cells in read_lines(file, _DOING):
        if not header:
            header = _header(cells, file)
            continue
        problem = _take(header, cells, entries)
        if problem:
            problems.append(f"line {line}: {problem}")
    if not header:
        _header([], file)
    problems += _met_twice(entries)
    if problems or not entries:
        raise problem_list(f"{_DOING} {file}", problems or ["it has no rows"])
    return entries


def _header(cells: Sequence[str], file: Path) -> list[str]:
    """The names of the columns. Raises InputError for unknown ones, and without `case`."""
    names = [cell.lower() for cell in cells]
    unknown = [name for name in names if name not in _COLUMNS]
    twice = [name for name in names if names.count(name) > 1]
    if "case" in names and not unknown and not twice:
        return names
    remedy = None
    if unknown:
        other = other_word(unknown[0])
        other = other if other not in names else None
        remedy = f"call that column {other}" if other else nearest(unknown[0], _COLUMNS)
    raise InputError(
        _DOING,
        file=file,
        expected="the column case and any of " + ", ".join(_COLUMNS[1:]) + ", each once",
        found=", ".join(cells) or "an empty file",
        remedy=remedy,
    )


def _take(header: Sequence[str], cells: Sequence[str], entries: dict[str, Entry]) -> str:
    """Enter one row; returns what is wrong with it."""
    if any(cells[len(header) :]):
        return "too many columns"
    values = dict.fromkeys(_COLUMNS, "") | dict(zip(header, cells, strict=False))
    name = unicodedata.normalize("NFC", values["case"])
    if not name:
        return "no case"
    if name in entries:
        return f"{name} comes twice"
    try:
        entries[name] = _entry(values)
    except ValueError as error:
        return str(error)
    return ""


def _entry(values: Mapping[str, str]) -> Entry:
    stacks: dict[str, Stack] = {name: name for name in get_args(Stack)}
    if values["stack"] and values["stack"] not in stacks:
        raise ValueError(f"stack {values['stack']!r} is not one of {', '.join(stacks)}")
    numbers = {}
    for name in ("seed", "fold", "slice"):
        text = values[name]
        if text and not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 18):
            raise ValueError(f"{name} {text!r} is not a whole number")
        numbers[name] = int(text) if text else None
    return Entry(
        group=values["group"] or None,
        part=values["part"],
        stack=stacks.get(values["stack"]),
        arm=values["arm"] or None,
        id=values["id"] or None,
        **numbers,
    )


def _met_twice(entries: Mapping[str, Entry]) -> list[str]:
    """Files to which the table gives the same slice of one case."""
    first: dict[tuple[str, int | None], str] = {}
    problems = []
    for name, entry in entries.items():
        other = first.setdefault((entry.id or name, entry.slice), name)
        if other != name:
            problems.append(f"{other} and {name} are the same part of {entry.id or name}")
    return problems
