"""Cross-validation folds and stratified splits by group: no group is ever in two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segweave.data.splits import cases_of, seeded_split
from segweave.errors import UsageError
from segweave.runtime.randomness import numpy_stream

USUAL = 5


def folds(
    groups: Mapping[str, str],
    count: int = 5,
    seed: int = 0,
    *,
    strata: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    together: Mapping[str, str] | None = None,
) -> dict[str, dict[str, list[str]]]:
    """`count` splits `fold-0`, `fold-1`, ... of the cases (`groups`: case id → group).

    Fold K is the test part of `fold-K`, the next fold its validation part, the others are trained
    on; so each group is tested once. The same arguments give the same folds in any order of cases.

    Args:
        groups: case id → group.
        count: how many folds.
        seed: of the order in which groups are dealt out.
        strata: group → stratum, such as a diagnosis; folds hold about equal shares of each.
        weights: group → weight, such as its frames (default: its cases); folds have about equal
            total weights.
        together: group → name; groups with the same name stay in one fold, for groups that may show
            the same patient.

    Raises UsageError for fewer than 3 folds or fewer blocks of groups than folds.
    """
    together, strata = together or {}, strata or {}
    blocks: dict[str, list[str]] = {}
    for group in sorted(set(groups.values())):
        blocks.setdefault(together.get(group, group), []).append(group)
    if not 3 <= count <= len(blocks):
        raise UsageError(
            "making folds",
            expected=f"from 3 folds to as many as there are groups to deal out ({len(blocks)})",
            found=str(count),
        )
    weight_of: dict[str, float] = {}
    for group in groups.values():
        weight_of[group] = weight_of.get(group, 0.0) + 1.0
    weight_of.update({group: w for group, w in (weights or {}).items() if group in weight_of})
    sizes = {block: sum(weight_of[group] for group in names) for block, names in blocks.items()}
    names = sorted(blocks)
    order = [
        names[int(i)] for i in numpy_stream(seed, "order", case="folds").permutation(len(names))
    ]
    # The heaviest are dealt first, each to the fold with the least of its stratum.
    order.sort(key=lambda block: -sizes[block])
    loads = [dict[str, float]() for _ in range(count)]
    dealt: list[list[str]] = [[] for _ in range(count)]
    for block in order:
        stratum = _stratum(blocks[block], strata)
        least = min(
            range(count),
            key=lambda k: (loads[k].get(stratum, 0.0), sum(loads[k].values()), k),
        )
        loads[least][stratum] = loads[least].get(stratum, 0.0) + sizes[block]
        dealt[least] += blocks[block]
    splits = {}
    for number in range(count):
        valid = (number + 1) % count
        parts = {
            "train": [g for k, some in enumerate(dealt) if k not in (number, valid) for g in some],
            "valid": dealt[valid],
            "test": dealt[number],
        }
        splits[f"fold-{number}"] = cases_of(parts, groups)
    return splits


def usual_folds(
    groups: Mapping[str, str],
    seed: int = 0,
    *,
    strata: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    together: Mapping[str, str] | None = None,
) -> dict[str, dict[str, list[str]]]:
    """Five `folds`, or as many as there are blocks of groups; none below three."""
    count = min(USUAL, len({(together or {}).get(group, group) for group in groups.values()}))
    if count < 3:
        return {}
    return folds(groups, count, seed, strata=strata, weights=weights, together=together)


def stratified_split(
    groups: Mapping[str, str],
    fractions: Sequence[float],
    seed: int = 0,
    *,
    strata: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """Part → case ids: `seeded_split` of the groups, one stratum (group → stratum) at a time.

    Without strata it deals exactly as `seeded_split` does. Raises what `seeded_split` raises.
    """
    split: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    members: dict[str, list[str]] = {}
    for group in sorted(set(groups.values())):
        members.setdefault((strata or {}).get(group, ""), []).append(group)
    for _, some in sorted(members.items()):
        for part, names in seeded_split(some, fractions, seed).items():
            split[part] += names
    return cases_of(split, groups)


def _stratum(members: Sequence[str], strata: Mapping[str, str]) -> str:
    return " and ".join(sorted({strata.get(group, "") for group in members}))
