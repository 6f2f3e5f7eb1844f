"""What a data set's file hands over for conversion: a plan of cases, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import SegweaveError

Splitter = Callable[[Mapping[str, str]], dict[str, dict[str, list[str]]]]


@dataclass(frozen=True)
class Item:
    """One case to convert: the source `files` that `read` takes it from (their content tells an
    interrupted conversion whether it is the same case). The label's own file, where there is one,
    comes last.
    """

    id: str
    files: tuple[Path, ...]
    read: Callable[[], Case]


@dataclass(frozen=True)
class Plan:
    """Everything about a source: its `layout`, the cases, what is `missing` or odd (`warnings`),
    and how groups (case id → group) are split. `errors` are faults that make a conversion wrong:
    `prepare` raises the first, `check` lists all. `options` that change what is read go into the
    record's fingerprint; `provenance` into the manifest.
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


def few(names: list[str], limit: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
