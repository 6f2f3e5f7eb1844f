from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.data.splits import check_splits
from segweave.data.splits.folds import folds, stratified_split
from segweave.datasets.acdc import _splits as acdc_splits
from segweave.errors import UsageError


@given(
    sizes=st.lists(st.integers(1, 5), min_size=5, max_size=25),
    count=st.integers(3, 5),
    seed=st.integers(0, 9),
)
def test_every_group_is_tested_once(sizes: list[int], count: int, seed: int) -> None:
    groups = {f"c{g}-{k}": f"g{g}" for g, size in enumerate(sizes) for k in range(size)}
    splits = folds(groups, count, seed)
    assert list(splits) == [f"fold-{k}" for k in range(count)]
    check_splits(splits, groups)
    tested = Counter(id for parts in splits.values() for id in parts["test"])
    assert tested == Counter(list(groups))
    for k, parts in enumerate(splits.values()):
        assert sorted(parts["train"] + parts["valid"] + parts["test"]) == sorted(groups)
        assert parts["valid"] == splits[f"fold-{(k + 1) % count}"]["test"]
        assert parts["train"]
    shuffled = dict(reversed(groups.items()))
    again = folds(shuffled, count, seed)
    assert set(again["fold-0"]["test"]) == set(splits["fold-0"]["test"])


def test_folds_are_even_and_stratified() -> None:
    groups = {f"c{k}": f"g{k:02d}" for k in range(40)}
    strata = {f"g{k:02d}": "rare" if k % 4 == 0 else "common" for k in range(40)}
    for parts in folds(groups, 5, strata=strata).values():
        found = Counter(strata[groups[id]] for id in parts["test"])
        assert found == {"rare": 2, "common": 6}
    weights = {f"g{k:02d}": 1.0 + k for k in range(40)}
    loads = [
        sum(weights[groups[id]] for id in parts["test"])
        for parts in folds(groups, 5, weights=weights).values()
    ]
    assert max(loads) - min(loads) < 0.05 * sum(loads) / 5


def test_what_belongs_together_stays_together() -> None:
    groups = {f"c{k}": f"g{k}" for k in range(12)}
    together = {f"g{k}": f"g{k - k % 3}" for k in range(12)}
    for parts in folds(groups, 3, together=together).values():
        blocks = [{together[groups[id]] for id in ids} for ids in parts.values()]
        assert sum(len(b) for b in blocks) == len(set.union(*blocks)) == 4


def test_seeds_matter_and_few_groups_are_refused() -> None:
    groups = {f"c{k}": f"g{k}" for k in range(20)}
    assert folds(groups, seed=0) != folds(groups, seed=1)
    for count in (1, 2, 21):
        with pytest.raises(UsageError, match="3 folds"):
            folds(groups, count)


def test_stratified_split() -> None:
    groups = {f"c{k}": f"g{k}" for k in range(40)}
    strata = {f"g{k}": "ab"[k % 2] for k in range(40)}
    parts = stratified_split(groups, (0.7, 0.1, 0.2), strata=strata)
    found = {part: Counter(strata[groups[id]] for id in ids) for part, ids in parts.items()}
    assert found == {
        "train": {"a": 14, "b": 14},
        "valid": {"a": 2, "b": 2},
        "test": {"a": 4, "b": 4},
    }


def test_folds_of_acdc_hold_equal_shares_of_each_diagnosis() -> None:
    names = [f"patient{number:03d}" for number in range(1, 101)]
    groups = {f"{name}_{phase}": name for name in names for phase in ("ED", "ES")}
    splits = acdc_splits(groups)
    check_splits(splits, groups)
    tested = []
    for number in range(5):
        test = {groups[id] for id in splits[f"fold-{number}"]["test"]}
        tested += sorted(test)
        assert Counter((names.index(name)) // 20 for name in test) == dict.fromkeys(range(5), 4)
    assert sorted(tested) == names
