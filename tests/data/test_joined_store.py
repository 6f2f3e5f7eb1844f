"""Several stores as one: nothing is lost, nothing mixed up, and what can't be joined is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segweave.data.cache import Resized
from segweave.data.joined_store import JoinedStore, open_stores
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import InputError, UsageError
from tests.data.made import TARGET, made_case

SPLIT = {"train": ["a", "b"], "test": ["c"]}


def store(
    path: Path,
    name: str,
    *,
    ids: str = "abc",
    target: TargetSpec = TARGET,
    splits: dict[str, dict[str, list[str]]] | None = None,
    grouped: bool = True,
) -> Store:
    with StoreWriter(path, name, target) as writer:
        for id in ids:
            writer.add(made_case(id))
        return writer.finish(splits, grouped=grouped)


@pytest.fixture
def joined(tmp_path: Path) -> JoinedStore:
    first = store(tmp_path / "1", "first", splits={"default": SPLIT, "mine": SPLIT})
    second = store(tmp_path / "2", "second", ids="cdba", splits={"default": {"train": ["d"]}})
    return JoinedStore([first, second])


def test_every_case_is_there_under_the_name_of_its_store(joined: JoinedStore) -> None:
    assert joined.name == "first+second"
    expected = [*(f"first/{id}" for id in "abc"), *(f"second/{id}" for id in "cdba")]
    assert joined.ids == expected == list(joined.groups)
    assert joined.groups["second/a"] == "second/a"
    for id in joined.ids:
        name, inner = id.split("/")
        case, original = joined.case(id), joined.stores[name].case(inner)
        np.testing.assert_array_equal(case.image, original.image)
        assert (case.id, case.group) == (id, f"{name}/{original.group}")
        assert joined.entry(id).content == joined.stores[name].entry(inner).content
        assert joined.entry(id).id == id
    assert list(joined.verify()) == joined.ids
    assert list(joined.verify(["second/d"])) == ["second/d"]


def test_splits_are_joined_part_by_part(joined: JoinedStore) -> None:
    assert joined.splits == {
        "default": {"train": ["first/a", "first/b", "second/d"], "test": ["first/c"]}
    }


def test_the_only_splits_of_different_names_are_joined(tmp_path: Path) -> None:
    stores = [
        store(tmp_path / "1", "first", splits={"official": SPLIT, "fold-0": SPLIT}),
        store(tmp_path / "2", "second", splits={"random": SPLIT}),
    ]
    assert list(JoinedStore(stores).splits) == ["joined"]
    wanted = JoinedStore(stores, {"both": {"first": "fold-0", "second": "random"}})
    assert wanted.splits["both"]["test"] == ["first/c", "second/c"]


def test_order_plays_no_part_and_content_does(tmp_path: Path) -> None:
    first = store(tmp_path / "1", "first", splits={"default": SPLIT})
    second = store(tmp_path / "2", "second", splits={"default": SPLIT})
    other = store(tmp_path / "3", "second", ids="abcd", splits={"default": SPLIT})
    one = JoinedStore([first, second])
    assert JoinedStore([second, first]).checksum == one.checksum
    assert JoinedStore([second, first]).ids == one.ids
    assert JoinedStore([first, other]).checksum != one.checksum
    assert one.checksum not in (first.checksum, second.checksum)


def test_stores_of_one_name_differ_by_their_content(tmp_path: Path) -> None:
    first = store(tmp_path / "1", "same")
    second = store(tmp_path / "2", "same", ids="abcd")
    joined = JoinedStore([first, second])
    assert set(joined.stores) == {f"same-{one.checksum[:8]}" for one in (first, second)}
    assert len(joined.ids) == len(set(joined.ids)) == 7


def test_a_split_that_leaks_says_so_in_its_name(tmp_path: Path) -> None:
    first = store(tmp_path / "1", "first", splits={"default": SPLIT})
    with StoreWriter(tmp_path / "2", "second", TARGET) as writer:
        for id in "abc":
            writer.add(made_case(id, group="one"))
        second = writer.finish({"default-leaks": SPLIT})
    joined = JoinedStore(
        [first, second], {"default": {"first": "default", "second": "default-leaks"}}
    )
    assert list(joined.splits) == ["default-leaks"]


def test_what_leaks_in_some_stores_leaks_in_the_whole(tmp_path: Path) -> None:
    other = {"train": ["c"], "test": ["a"]}
    first = store(tmp_path / "1", "first", splits={"seed-0": SPLIT, "test-only": {"test": ["a"]}})
    second = store(
        tmp_path / "2", "second", ids="abcd", splits={"seed-0": other, "seed-0-leaks": SPLIT}
    )
    third = store(tmp_path / "3", "third", ids="abce", splits={"seed-0-leaks": other})
    # With both draws in every store that has a sound one, the whole has both.
    whole = JoinedStore([first, second])
    assert set(whole.splits) == {"seed-0", "seed-0-leaks"}
    assert whole.splits["seed-0"]["train"] == ["first/a", "first/b", "second/c"]
    assert whole.splits["seed-0-leaks"]["train"] == [
        *("first/a", "first/b"),
        *("second/a", "second/b"),
    ]
    assert set(JoinedStore([first, second, third]).splits) == {"seed-0-leaks"}
    assert set(JoinedStore([third, first]).splits) == {"seed-0-leaks"}


def test_copies_across_stores_are_found(tmp_path: Path, joined: JoinedStore) -> None:
    assert joined.copies() == []
    first = store(tmp_path / "3", "first", splits={"default": {"train": ["a", "b"]}})
    second = store(tmp_path / "4", "second", ids="cda", splits={"default": {"test": ["a"]}})
    (sentence,) = JoinedStore([first, second]).copies()
    assert "first/a and second/a have the same image" in sentence
    whole = JoinedStore([first, second])
    assert whole.copies({"x": {"train": ["first/a"], "test": ["second/c"]}}) == []


def test_grouped_only_where_all_are(tmp_path: Path) -> None:
    stores = [
        store(tmp_path / "1", "first"),
        store(tmp_path / "2", "second", grouped=False),
    ]
    assert not JoinedStore(stores).grouped


def test_colours_may_differ_and_classes_may_not(tmp_path: Path) -> None:
    first = store(tmp_path / "1", "first")
    coloured = TARGET.model_copy(update={"colours": ("#000", "#100", "#200", "#300")})
    assert JoinedStore([first, store(tmp_path / "2", "second", target=coloured)]).ids
    renamed = TARGET.model_copy(update={"names": ("background", "a", "b", "d")})
    third = store(tmp_path / "3", "third", target=renamed)
    with pytest.raises(UsageError, match=r"first and third[\s\S]*names: "):
        JoinedStore([first, third])


def test_what_cannot_be_joined_is_refused(tmp_path: Path, joined: JoinedStore) -> None:
    first, second = joined.stores.values()
    with pytest.raises(UsageError, match="at least one store"):
        JoinedStore([])
    with pytest.raises(UsageError, match="the store first twice"):
        JoinedStore([first, second, first])
    with pytest.raises(UsageError, match="each of the stores first, second"):
        JoinedStore([first, second], {"mine": {"first": "mine"}})
    with pytest.raises(UsageError, match=r"no split 'mine' in the store second"):
        JoinedStore([first, second], {"mine": {"first": "mine", "second": "mine"}})
    with pytest.raises(UsageError, match=r"no case 'first/d'"):
        joined.case("first/d")
    with pytest.raises(InputError):
        open_stores([tmp_path / "1", tmp_path / "nowhere"])


def test_open_stores_gives_a_single_store_as_it_is(tmp_path: Path, joined: JoinedStore) -> None:
    assert open_stores(tmp_path / "1").ids == ["a", "b", "c"]
    assert open_stores([tmp_path / "1"]).name == "first"
    assert open_stores([tmp_path / "2", tmp_path / "1"]).checksum == joined.checksum


def test_resized_copies_are_shared_with_the_single_store(
    tmp_path: Path, joined: JoinedStore
) -> None:
    spec = InputSpec(size=(8, 8))
    single = Resized(Store(tmp_path / "1"), spec)
    both = Resized(joined, spec)
    assert both.path_of("first/a") == single.path_of("a")
    assert both.path_of("second/d").parent == tmp_path / "2.cache"
    np.testing.assert_array_equal(both["first/a"].image, single["a"].image)
