from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.data.inputs import window_indices
from segweave.errors import UsageError

RELEASED_TABLE = {0: [0, 0, 2], 1: [0, 1, 2], 2: [1, 2, 3], 3: [1, 3, 3]}


@pytest.mark.parametrize(("index", "window"), RELEASED_TABLE.items())
def test_released_edges_are_those_of_the_protocol(index: int, window: list[int]) -> None:
    assert window_indices(4, index, 3, "released") == window


def test_released_edges_of_three_slices() -> None:
    windows = [window_indices(3, index, 3, "released") for index in range(3)]
    assert windows == [[0, 0, 2], [0, 1, 2], [0, 2, 2]]


@pytest.mark.parametrize("count", [1, 2])
def test_released_edges_repeat_where_there_are_too_few_slices(count: int) -> None:
    for index in range(count):
        assert window_indices(count, index, 3, "released") == window_indices(count, index, 3)


def test_repeat() -> None:
    assert window_indices(4, 0, 3) == [0, 0, 1]
    assert window_indices(4, 3, 5) == [1, 2, 3, 3, 3]
    assert window_indices(1, 0, 5) == [0, 0, 0, 0, 0]
    assert window_indices(9, 4, 1) == [4]


def test_gaps_are_not_crossed() -> None:
    assert window_indices(6, 2, 3, gaps=(3,)) == [1, 2, 2]
    assert window_indices(6, 3, 3, gaps=(3,)) == [3, 3, 4]
    # The part after the gap has three slices: its last has the released edge.
    assert window_indices(6, 5, 3, "released", gaps=(3,)) == [3, 5, 5]
    assert window_indices(6, 4, 3, "released", gaps=(3, 5)) == [3, 4, 4]


@given(
    count=st.integers(1, 30),
    data=st.data(),
    slices=st.sampled_from([1, 3, 5, 7]),
    edge=st.sampled_from(["repeat", "released"]),
    gaps=st.lists(st.integers(1, 29), max_size=4),
)
def test_windows_hold(count, data, slices, edge, gaps) -> None:  # type: ignore[no-untyped-def]
    index = data.draw(st.integers(0, count - 1))
    if edge == "released":
        slices = min(slices, 3)
    window = window_indices(count, index, slices, edge, gaps)
    assert len(window) == slices
    assert window[slices // 2] == index
    assert window == sorted(window)
    assert window[0] >= 0
    assert window[-1] < count
    for gap in gaps:
        assert all((number < gap) == (index < gap) for number in window)
    reach = slices // 2
    inner = (
        all(not (index - reach < gap <= index + reach) for gap in gaps)
        and reach <= index < count - reach
    )
    if inner:
        assert window == list(range(index - reach, index + reach + 1))


@pytest.mark.parametrize("wrong", [(4, 0, 2), (4, 0, 0), (4, 4, 3), (4, -1, 3), (0, 0, 1)])
def test_wrong_numbers_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        window_indices(*wrong)


def test_released_edges_are_known_for_three_slices_alone() -> None:
    with pytest.raises(UsageError, match="edge: repeat"):
        window_indices(9, 0, 5, "released")


def test_wrong_edge_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean released"):
        window_indices(4, 0, 3, "relaesed")  # type: ignore[arg-type]
