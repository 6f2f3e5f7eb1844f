"""Which class ids the label maps of a data set hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError, nearest
from segweave.formats.table import PICTURES, suffix_of
from segweave.words import few

TargetKind = Literal["auto", "binary", "exclusive"]
_BACKGROUND = "background"
MOST_UNNAMED = 31
"""Label maps with higher ids, and with gaps between the ids, are more likely grey images."""


def scaled_ids(held: Mapping[Path, Collection[int]]) -> tuple[bool, dict[Path, list[int]]]:
    """Whether 255 means 1 in the masks (file → the values in it) of a data set, and the ids
    that they then hold.

    It does where most pictures with a 255 hold nothing but 0 and 255. A 255 beside class ids is an
    ignored value, and then it is one too in the masks that hold nothing else.
    """
    white = {p for p, ids in held.items() if 255 in ids and {*ids} <= {0, 255} and _picture(p)}
    other = [p for p, ids in held.items() if p not in white and not {*ids} <= {0, 1}]
    scaled = len(white) > 2 * len(other)
    return scaled, {
        path: sorted({min(id, 1) if scaled and path in white else id for id in ids})
        for path, ids in held.items()
    }


def _picture(path: Path) -> bool:
    return suffix_of(path) in PICTURES


def target_of_names(names: Sequence[str], kind: TargetKind = "auto") -> TargetSpec:
    """The target whose classes are named: `background` and then those from id 1 on, or these alone.
    Raises UsageError for names that are no classes, and for more than one of a binary target.
    """
    doing = "naming the classes"
    cleaned = [str(name).strip() for name in names]
    full = tuple(cleaned) if _has_background(cleaned) else (_BACKGROUND, *cleaned)
    if len(full) < 2 or not all(full) or len(set(full)) < len(full):
        raise UsageError(
            doing,
            expected="at least one class beside the background, each named once",
            found=", ".join(map(repr, cleaned)),
        )
    if kind == "binary" and len(full) > 2:
        raise UsageError(
            doing,
            expected="one class, or background and one class, for the kind binary",
            found=", ".join(cleaned),
        )
    binary = kind == "binary" or (kind == "auto" and len(full) == 2)
    return TargetSpec(kind="binary" if binary else "exclusive", names=full)


def check_named(names: Sequence[str], highest: int, doing: str, file: Path | None = None) -> None:
    """Raise InputError where more classes are named than the label maps hold, whose `highest` id is
    given: then the first name was meant for id 0. With `background` first there is no doubt.
    """
    if not names or _has_background(names) or highest >= len(names):
        return
    first = f"{_BACKGROUND},{','.join(names)}"
    raise InputError(
        doing,
        file=file,
        expected=f"ids up to {len(names)}: the names {', '.join(names)} begin at id 1",
        found=f"ids up to {highest}",
        remedy=f"if {names[0]!r} is id 0, call it background; if the last classes are in no file, "
        f"put background first: {first}",
        kind="labels",
    )


def too_many_names(
    names: Sequence[str], held: Mapping[Path, Collection[int]], doing: str
) -> list[InputError]:
    """The error of `check_named` for label maps (file → the values in it), else nothing."""
    highest = max((max(ids, default=0) for ids in held.values()), default=0)
    try:
        check_named(names, highest if held else len(names), doing)
    except InputError as error:
        return [error]
    return []


def _has_background(names: Sequence[str]) -> bool:
    """Whether the first name is that of id 0."""
    return bool(names) and str(names[0]).strip().casefold() == _BACKGROUND


def target_of_ids(
    held: Mapping[Path, Collection[int]], doing: str, kind: TargetKind = "auto"
) -> tuple[TargetSpec, bool, list[InputError]]:
    """The target whose classes are the ids that label maps hold.

    Args:
        held: file → the values in it.
        doing: what it is for, for error messages.
        kind: "auto" is binary where no id is above 1.

    Returns the target, whether 255 means 1 in pictures (as `read_label` takes `scaled`), and
    an error where ids can't be classes.
    """
    white, ids_of = scaled_ids(held)
    ids = {id for several in ids_of.values() for id in several}
    highest = max(ids, default=0)
    most = 1 if white else MOST_UNNAMED
    gaps = len(ids | {0}) <= highest
    unusual = sorted(path for path, some in ids_of.items() if max(some, default=0) > most)
    errors = []
    if unusual and kind != "binary" and (white or gaps):
        errors = [_no_classes(sorted(ids), unusual, len(ids_of), white, doing)]
    if errors or kind == "binary":
        highest = max((id for id in ids if id <= most), default=0)
    if kind == "binary" or (kind == "auto" and highest <= 1):
        target = TargetSpec(kind="binary", names=("background", "foreground"))
    else:
        target = TargetSpec(names=("background", *(f"class {i}" for i in range(1, highest + 1))))
    return target, white and target.white_is_one, errors


def _no_classes(
    ids: Sequence[int], files: Sequence[Path], count: int, white: bool, doing: str
) -> InputError:
    return InputError(
        doing,
        file=files[0],
        expected="0 and 255 alone, as in most masks" if white else "class ids 0, 1, 2, ...",
        found=f"{len(ids)} different values up to {ids[-1]} in {len(files)} of {count} files: "
        f"{few(ids)}",
        remedy="if these are classes, give them the ids 1, 2, 3, ... or name all ids from 0 on "
        "(--classes); if they are grey masks, give a threshold (--mask-threshold 127)",
        kind="labels",
    )


def check_kind(kind: str, doing: str) -> None:
    """Raise UsageError unless `kind` is one of `TargetKind`."""
    if kind not in get_args(TargetKind):
        raise UsageError(
            doing,
            expected="kind " + ", ".join(get_args(TargetKind)),
            found=repr(kind),
            remedy=nearest(str(kind), get_args(TargetKind)),
        )
