from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.data.splits import cases_of, check_splits, mark_leaking, seeded_split
from segweave.datasets.published_splits import load_split
from segweave.errors import UsageError


def test_the_published_split_has_every_patient_once() -> None:
    split = load_split("acdc")
    assert {part: len(names) for part, names in split.parts.items()} == {
        "train": 70,
        "valid": 10,
        "test": 20,
    }
    patients = [name for names in split.parts.values() for name in names]
    assert sorted(patients) == [f"patient{number:03d}" for number in range(1, 101)]
    assert split.name == "70-10-20"
    assert "MT-UNet" in split.source


def test_cases_follow_their_groups() -> None:
    split = load_split("acdc")
    train, test = split.parts["train"][0], split.parts["test"][0]
    groups = {f"{train}_ED": train, f"{test}_ES": test, "other": "someone"}
    assert split.cases(groups) == {"train": [f"{train}_ED"], "valid": [], "test": [f"{test}_ES"]}
    assert cases_of({"a": ["x"]}, {"1": "x", "2": "x"}) == {"a": ["1", "2"]}


def test_unknown_splits_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="acdc"):
        load_split("acdcc")


@given(
    groups=st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=40),
    fractions=st.sampled_from([(0.7, 0.1, 0.2), (0.8, 0.2, 0.0), (1.0, 0, 0), (0.0, 0.5, 0.5)]),
    seed=st.integers(0, 99),
)
def test_seeded_splits(groups, fractions, seed) -> None:  # type: ignore[no-untyped-def]
    parts = seeded_split(groups, fractions, seed)
    dealt = [name for names in parts.values() for name in names]
    assert sorted(dealt) == sorted(set(groups))
    assert parts == seeded_split(groups[::-1], fractions, seed)
    count = len(set(groups))
    if count >= 10:
        for part, fraction in zip(("train", "valid", "test"), fractions, strict=True):
            assert abs(len(parts[part]) - fraction * count) <= 1
            assert (len(parts[part]) > 0) == (fraction > 0)


def test_seeds_matter() -> None:
    names = [str(n) for n in range(30)]
    assert seeded_split(names, (0.7, 0.1, 0.2), 0) != seeded_split(names, (0.7, 0.1, 0.2), 1)


@pytest.mark.parametrize("wrong", [(0.5, 0.5), (0.5, 0.4, 0.4), (1.5, -0.5, 0.0)])
def test_fractions_must_add_up(wrong: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="three fractions"):
        seeded_split(["a"], wrong, 0)


def test_a_split_that_cuts_groups_is_allowed_under_a_name_that_says_so() -> None:
    groups = {"a1": "a", "a2": "a", "b": "b"}
    given = {"x": {"train": ["a1"], "test": ["a2", "b"]}, "y": {"train": ["a1", "a2"], "test": []}}
    with pytest.raises(UsageError, match="every group in one part"):
        check_splits(given, groups)
    named, (warning,) = mark_leaking(given, groups)
    assert named == {"x-leaks": given["x"], "y": given["y"]}
    assert warning.startswith("x-leaks: ")
    check_splits(named, groups)
    assert mark_leaking({"y": given["y"]}, groups) == ({"y": given["y"]}, [])
    with pytest.raises(UsageError, match="every case in one part"):
        check_splits({"z-leaks": {"train": ["b"], "test": ["b"]}}, groups)
