"""What a data set's file hands over for conversion: a plan of cases, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError

Splitter = Callable[[Mapping[str, str]], dict[str, dict[str, list[str]]]]


@dataclass(frozen=True)
class Item:
    """One case to convert: the source `files` that `read` takes it from (their content and `group`
    tell an interrupted conversion whether it is the same case). The label's own file, where there
    is one, comes last. `parts` are files that can be read each on its own (of pictures: image and
    mask in turn), so that `check` can name every fault of a case whose reading stops at the first.
    `group` is that of the case that `read` returns, "" where it is the id.
    """

    id: str
    files: tuple[Path, ...]
    read: Callable[[], Case]
    parts: tuple[tuple[Path, Callable[[], object]], ...] = ()
    group: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Files that no case is made of: the sentence that `prepare` `said` of all, and a fault for
    each, with its file, for `check` to list. `partners` are whole, and left out with the others.
    """

    said: str
    faults: list[SegweaveError]
    partners: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything about a source: its `layout`, the cases, what is `missing` of the data set, files
    `left_out`, what is odd (`warnings`), and how groups (case id → group) are split. `errors` are
    faults that make a conversion wrong: `prepare` raises the first, `check` lists all. `options`
    that change what is read go into the record's fingerprint; `provenance` into the manifest.
    `grouped` is False where nothing says which cases are of one patient or video.
    """

    layout: str
    target: TargetSpec
    items: list[Item]
    splits: Splitter
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    options: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    errors: list[SegweaveError] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    grouped: bool = True

    def groups(self) -> dict[str, str]:
        """Case id → group, before any case is read."""
        return {item.id: item.group or item.id for item in self.items}


def alone(said: str, files: Sequence[Path], *, lacks: str) -> list[LeftOut]:
    """Files left out because what they belong with is not there; [] where there are none."""
    doing = "looking for what belongs together"
    faults = [
        InputError(
            doing,
            file=path,
            expected="image and label together",
            found=f"no {lacks}, left out",
            kind="missing",
        )
        for path in files
    ]
    return [LeftOut(said, list(faults))] if faults else []


def not_there(said: str, file: Path, *partners: Path) -> LeftOut:
    """A file that is listed somewhere and is not there, and those that belong to it."""
    error = InputError(
        "looking for a case",
        file=file,
        expected="every file that is listed",
        found="it is not there, left out",
        kind="missing",
    )
    return LeftOut(said, [error], partners)


def odd_names(items: Sequence[Item]) -> list[InputError]:
    """An error for each file whose name is no text in UTF-8, which no store can tell of."""
    names = [(str(path), path) for item in items for path in item.files]
    return [
        InputError(
            "reading the names of files",
            expected="names in UTF-8",
            found=os.fsencode(path).decode("utf-8", "backslashreplace"),
            remedy="rename it",
            kind="layout",
        )
        for name, path in names
        if name != name.encode("utf-8", "ignore").decode("utf-8")
    ]


def short_of(expected: Mapping[str, int], counts: Mapping[str, int]) -> list[str]:
    """What is missing of the counts on a card."""
    return [
        f"{wanted} {what} are expected, {counts[what]} are there"
        for what, wanted in expected.items()
        if counts[what] != wanted
    ]


def few(names: list[str], limit: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
