"""Splits into parts, by group: a group is never in two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segweave.errors import UsageError, nearest
from segweave.runtime.randomness import numpy_stream

PARTS = ("train", "valid", "test")
_WORDS = {"training": "train", "val": "valid", "validation": "valid", "testing": "test"}
Splits = Mapping[str, Mapping[str, Sequence[str]]]
LEAKS = "-leaks"
"""How the name of a split ends that is kept though groups are in several of its parts."""
_FEW = 6
_FOLD = "fold-"


def part_named(word: str) -> str:
    """The part that a word in a table means: also training, val, validation and testing, in any
    case; "" for any other word.
    """
    name = _WORDS.get(word.lower(), word.lower())
    return name if name in PARTS else ""


def only_split(splits: Splits) -> str | None:
    """The name of the one split beside the folds; None where there is none, or several. Splits that
    leak count only where there is no other.
    """
    whole = [name for name in splits if not name.startswith("fold-")]
    sound = [name for name in whole if not name.endswith(LEAKS)]
    chosen = sound or whole
    return chosen[0] if len(chosen) == 1 else None


def choose_parts(
    splits: Splits,
    groups: Mapping[str, str],
    split: str | None,
    parts: Mapping[str, str | None],
    doing: str,
) -> dict[str, list[str]]:
    """Case ids of the parts of a split.

    Args:
        splits: the splits of a store.
        groups: case id → group.
        split: name of the split; None means the only one beside the folds.
        parts: "training", "validation" and "test", with what the split calls each; None leaves one
            out. A test part may be missing from the split, the others may not.
        doing: what is being done, for the error message.

    Raises UsageError for a split or part that the store lacks, for no training cases, and where a
    group is in two of the parts (a case, where the split's name marks it as leaking).
    """
    if split is None:
        split = only_split(splits)
        if split is None:
            raise UsageError(
                doing,
                expected="data.split, as the store has not exactly one beside its folds",
                found=", ".join(splits) or "no splits",
            )
    if split not in splits:
        raise UsageError(doing, found=f"data.split: {split}", remedy=_right_split(split, splits))
    cases = splits[split]
    chosen: dict[str, list[str]] = {}
    for key, part in parts.items():
        if part is None or (key == "test" and part not in cases):
            continue
        if part not in cases:
            remedy = nearest(part, cases)
            if key == "validation":
                remedy += "; or train without validation cases (data.validation=null)"
            raise UsageError(doing, found=f"data.{key}: {part}", remedy=remedy)
        chosen[key] = list(cases[part])
    if not chosen["training"]:
        others = [name for name, its in splits.items() if its.get(str(parts["training"]))]
        raise UsageError(
            doing,
            expected="training cases",
            found=f"none in {parts['training']} of the split {split}",
            remedy=f"splits that have some: {', '.join(others)} (data.split, or --fold for folds)"
            if others
            else "this store has none in any split: it is for testing",
        )
    check_parts(chosen, groups, doing, leaks=split.endswith(LEAKS))
    return chosen


def _right_split(name: str, splits: Splits) -> str:
    """The remedy for a split that is not there."""
    folds = [one.removeprefix(_FOLD) for one in splits if one.startswith(_FOLD)]
    if not name.startswith(_FOLD):
        return nearest(name, splits)
    if not folds:
        return f"this store has no folds, but {', '.join(splits) or 'no split at all'}"
    return f"this store has the folds {', '.join(folds)}"


def cases_of(parts: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Parts of groups → parts of the cases (id → group) that belong to them."""
    home = {group: part for part, names in parts.items() for group in names}
    return {part: [id for id, group in groups.items() if home.get(group) == part] for part in parts}


def crossing(
    parts: Mapping[str, Sequence[str]], groups: Mapping[str, str]
) -> tuple[str, str, str] | None:
    """The first group (case id → group) that is in two parts of a split, with these two parts; None
    where there is none. Unknown cases don't count.
    """
    home: dict[str, str] = {}
    for part, ids in parts.items():
        for group in (groups[id] for id in ids if id in groups):
            if home.setdefault(group, part) != part:
                return group, home[group], part
    return None


def check_parts(
    parts: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    doing: str,
    *,
    leaks: bool = False,
) -> None:
    """Raise UsageError where a group is in two parts of a split.

    Args:
        parts: part → ids of its cases.
        groups: case id → group.
        doing: what is being done, for the error message.
        leaks: whether the split is known to leak; then no case may be in two parts.
    """
    units = {id: id for id in groups} if leaks else groups
    found = crossing(parts, units)
    if found is not None:
        unit, first, second = found
        raise UsageError(
            doing,
            expected="every case in one part" if leaks else "every group in one part",
            found=f"{unit!r} in {first} and in {second}",
        )


def mark_leaking(
    splits: Splits, groups: Mapping[str, str]
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Published splits under names that show which of them leak, and a warning about those."""
    named = {
        f"{name}{LEAKS}" if crossing(parts, groups) else name: {
            part: list(ids) for part, ids in parts.items()
        }
        for name, parts in splits.items()
    }
    leaking = [name for name in named if name not in splits]
    warning = (
        f"{', '.join(leaking)}: patients (groups) are in several parts, so scores say little about "
        "new ones"
    )
    return named, [warning] if leaking else []


def check_splits(splits: Splits, groups: Mapping[str, str]) -> None:
    """Raise UsageError where a split names an unknown case or has a group in two of its parts (a
    case in two of them, where its name ends with -leaks).
    """
    for name, parts in splits.items():
        for part, ids in parts.items():
            for id in ids:
                if id not in groups:
                    raise UsageError(
                        f"reading the split {name!r}",
                        found=f"{part} names {id!r}, which is not in the store",
                        remedy=nearest(id, groups),
                    )
        check_parts(parts, groups, f"reading the split {name!r}", leaks=name.endswith(LEAKS))


def copies_across(splits: Splits, contents: Mapping[str, str]) -> list[str]:
    """Sentences, one per pair, on cases of equal content (id → checksum) in different parts of a
    split: what is learned from the one is tested on the other. After the first few pairs their
    number alone.
    """
    same: dict[str, list[str]] = {}
    for id, content in contents.items():
        same.setdefault(content, []).append(id)
    found: dict[tuple[str, str], list[str]] = {}
    for name, parts in splits.items():
        home = {id: part for part, ids in parts.items() for id in ids}
        for ids in same.values():
            inside = [id for id in ids if id in home]
            for id in inside[1:]:
                other = next((one for one in inside if home[one] != home[id]), None)
                if other is not None:
                    pair = (min(id, other), max(id, other))
                    where = f"{name}: {home[pair[0]]} and {home[pair[1]]}"
                    if where not in found.setdefault(pair, []):
                        found[pair].append(where)
    sentences = [
        f"{first} and {second} have the same image, but are in different parts of a split "
        f"({places[0]}{f'; {len(places) - 1} more' if places[1:] else ''})"
        for (first, second), places in sorted(found.items())
    ]
    rest = len(sentences) - _FEW
    if rest < 2:
        return sentences
    return [*sentences[:_FEW], f"{rest} more pairs of cases are like that"]


def seeded_split(
    groups: Sequence[str], fractions: Sequence[float], seed: int
) -> dict[str, list[str]]:
    """Deal `groups` to train, valid and test by `fractions` (of the number of groups, rounded).

    The same set of groups and the same seed give the same split in any order. A part with a
    positive fraction gets at least one group where there are enough. Raises UsageError for
    fractions that are not three numbers from 0 that add up to 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(
            "splitting cases",
            expected="three fractions (train, valid, test) that add up to 1",
            found=", ".join(map(str, fractions)),
        )
    names = sorted(set(groups))
    order = [names[int(i)] for i in numpy_stream(seed, "order").permutation(len(names))]
    counts = [int(np.floor(fraction * len(names) + 0.5)) for fraction in fractions]
    for part in (1, 2):
        if fractions[part] > 0 and counts[part] == 0 and len(names) >= 3:
            counts[part] = 1
    held_out = min(len(names), counts[1] + counts[2])
    first = len(names) - held_out
    second = first + min(counts[1], held_out)
    return {
        "train": sorted(order[:first]),
        "valid": sorted(order[first:second]),
        "test": sorted(order[second:]),
    }
