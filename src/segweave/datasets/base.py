"""What a data set's file returns for conversion: a plan of cases, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, nearest

T = TypeVar("T")
_NEARLY_ALL = 0.8
Splitter = Callable[[Mapping[str, str]], dict[str, dict[str, list[str]]]]


@dataclass(frozen=True)
class Item:
    """One case to convert: the source `files` that `read` takes it from (their content and `group`
    identify the case when an interrupted conversion continues). The label's own file, where there
    is one, comes last. `parts` are files that can each be read separately (of pictures: image and
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
    """Files that no case is made of: the `message` of `prepare` about all of them, and a fault for
    each, with its file, for `check` to list. `partners` are whole, and left out with the others.
    """

    message: str
    faults: list[SegweaveError]
    partners: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything about a source: its `layout`, the cases, what is `missing` of the data set, files
    `left_out`, `warnings`, and how groups (case id → group) are split. `errors` are
    faults that make a conversion wrong: `prepare` raises the first, `check` lists all. `options`
    that change what is read go into the record's fingerprint; `provenance` into the manifest.
    `grouped` is False where it is unknown which cases are of one patient or video.
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


def choose_layout(
    title: str,
    source: Path,
    layout: str,
    finders: Mapping[str, Callable[[Path], T | None]],
    expected: str,
) -> tuple[str, T]:
    """The layout that `source` has, and what its finder found there.

    Args:
        title: the data set, for error messages.
        source: the folder.
        layout: the name of the layout that is asked for, "auto" to recognise it.
        finders: layout → a function that returns something where a folder has it.
        expected: what the layouts look like, for error messages.

    Raises InputError where no layout fits, UsageError for an unknown one and where several fit.
    """
    if layout not in ("auto", *finders):
        raise UsageError(
            f"choosing the layout of {title}",
            found=repr(layout),
            remedy=nearest(layout, ("auto", *finders)),
        )
    found = {
        name: there
        for name, find in finders.items()
        if layout in ("auto", name) and (there := find(source))
    }
    if not found:
        raise InputError(
            f"looking for {title}",
            file=source,
            expected=expected if layout == "auto" else f"the layout {layout}",
            found="nothing like it",
            remedy="give the folder that holds it",
            kind="layout",
        )
    if len(found) > 1:
        raise UsageError(
            f"looking for {title}",
            file=source,
            expected="one layout",
            found=" and ".join(found),
            remedy=f"say which with layout={' or '.join(found)}",
        )
    return next(iter(found.items()))


def collected(errors: list[SegweaveError], read: Callable[[], T], otherwise: T) -> T:
    """What `read` returns; where it raises InputError, the error is added to `errors` and the
    result is `otherwise`, so that one fault does not hide the others.
    """
    try:
        return read()
    except InputError as error:
        errors.append(error)
        return otherwise


def alone(message: str, files: Sequence[Path], *, lacks: str) -> list[LeftOut]:
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
    return [LeftOut(message, list(faults))] if faults else []


def not_there(message: str, file: Path, *partners: Path) -> LeftOut:
    """A file that is listed somewhere and is not there, and those that belong to it."""
    error = InputError(
        "looking for a case",
        file=file,
        expected="every file that is listed",
        found="it is not there, left out",
        kind="missing",
    )
    return LeftOut(message, [error], partners)


def invalid_names(items: Sequence[Item]) -> list[InputError]:
    """An error for each file whose name is not valid UTF-8, which no store can hold."""
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


def inverted_note(shares: Sequence[float]) -> str:
    """A note where masks look as if black and white were exchanged: most are foreground nearly
    everywhere. "" where they don't.

    Args:
        shares: the share of foreground pixels in each mask.
    """
    full = sum(share > _NEARLY_ALL for share in shares)
    if not shares or full <= len(shares) / 2:
        return ""
    return (
        f"{full} of {len(shares)} masks are foreground in more than {_NEARLY_ALL:.0%} of their "
        "pixels: are black and white exchanged in them?"
    )


def short_of(expected: Mapping[str, int], counts: Mapping[str, int]) -> list[str]:
    """What is missing of the counts on a card."""
    return [
        f"{wanted} {what} are expected, {counts[what]} are there"
        for what, wanted in expected.items()
        if counts[what] != wanted
    ]
