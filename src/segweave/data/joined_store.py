"""Several stores read as one: training on several data sets together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.splits import LEAKS, Splits, check_splits, copies_across, crossing, only_split
from segweave.data.store import CaseStore, Entry, Store
from segweave.errors import UsageError, nearest
from segweave.storage import canonical_json, sha256_of_text

JOINED = "joined"
"""The split that joins the only split of each store, where their names differ."""
_DOING = "joining stores"


def open_stores(
    paths: str | Path | Sequence[str | Path],
    splits: Mapping[str, Mapping[str, str]] | None = None,
) -> CaseStore:
    """The store in a folder, or several stores as one (see `JoinedStore`).

    Raises InputError where a folder holds no store, UsageError for stores that can't be joined.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    stores = [Store(path) for path in given]
    return stores[0] if len(stores) == 1 and not splits else JoinedStore(stores, splits)


class JoinedStore:
    """Several stores with the same target, read as one store.

    Ids and groups are those of the stores behind the name of their store: case `patient001` of the
    store `acdc` is `acdc/patient001`. So they are unique, and the streams of random numbers of a
    case depend on the store that it is from. The order in which the stores are given plays no part.

    A split of this name in every store becomes a split of the whole, part by part. A split that
    leaks in one store leaks in the whole, and its name then ends with "-leaks": NAME of some stores
    and NAME-leaks of the others become NAME-leaks. Where the names differ otherwise, `splits` says
    what belongs together; without it, and where each store has exactly one split beside its folds,
    these become the split `joined`.

    Args:
        stores: the stores.
        splits: name of a split of the whole → for each store, by its name, the split that goes
            into it.

    Attributes:
        stores: the stores by the names that ids begin with: their own, with the first characters
            of their checksums where two stores have the same name.
        name: the names joined with "+".
        target: the target that they share.
        splits: name of a split → part → case ids.
        checksum: the digest of the stores' checksums and of the splits.
        grouped: whether every store has groups of patients.

    Raises UsageError for no store, a store that is given twice, stores with different targets (with
    both their names), and `splits` that name what is not there.
    """

    def __init__(
        self, stores: Sequence[CaseStore], splits: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.stores = _by_name(stores)
        self.name = "+".join(self.stores)
        self.target = _shared_target(self.stores)
        self.grouped = all(store.grouped for store in self.stores.values())
        self._home = {
            f"{name}/{id}": (name, id) for name, store in self.stores.items() for id in store.ids
        }
        self.splits = _joined_splits(self.stores, splits, self.groups)
        check_splits(self.splits, self.groups)
        content = {
            "stores": {name: store.checksum for name, store in self.stores.items()},
            "splits": self.splits,
        }
        self.checksum = sha256_of_text(canonical_json(content))

    @property
    def ids(self) -> list[str]:
        """The cases, store by store, in the order in which they were written."""
        return list(self._home)

    @property
    def groups(self) -> dict[str, str]:
        """Case id → group."""
        return {
            f"{name}/{id}": f"{name}/{group}"
            for name, store in self.stores.items()
            for id, group in store.groups.items()
        }

    def entry(self, id: str) -> Entry:
        """Size, slices and checksum of a case; an unknown id raises UsageError."""
        store, inner, name = self._find(id)
        entry = store.entry(inner)
        return replace(entry, id=id, group=f"{name}/{entry.group}")

    def case(self, id: str) -> Case:
        """One case; its slices are read when they are touched. An unknown id raises UsageError."""
        store, inner, name = self._find(id)
        case = store.case(inner)
        return replace(case, id=id, group=f"{name}/{case.group}")

    def verify(self, ids: Iterable[str] | None = None) -> Iterator[str]:
        """Read every byte of these cases (all, if None) against its checksum; yields each id that
        is whole, raises InputError at the first that is not.
        """
        for id in self.ids if ids is None else ids:
            store, inner, _ = self._find(id)
            yield from (id for _ in store.verify([inner]))

    def cache_folder(self, id: str) -> Path:
        """The folder for disposable copies of a case: that of its store."""
        store, inner, _ = self._find(id)
        return store.cache_folder(inner)

    def image_checksums(self, ids: Iterable[str] | None = None) -> dict[str, str]:
        """Case id → sha256 of the image, for these cases (all, if None); reads each record."""
        found = {}
        for id in self.ids if ids is None else ids:
            store, inner, _ = self._find(id)
            found[id] = store.image_checksums([inner])[inner]
        return found

    def copies(self, splits: Splits | None = None) -> list[str]:
        """Sentences on cases with the same image that are in different parts of a split (of these,
        or of all): data sets that were made from each other leak this way.
        """
        splits = self.splits if splits is None else splits
        ids = {id for parts in splits.values() for some in parts.values() for id in some}
        return copies_across(splits, self.image_checksums(sorted(ids)))

    def _find(self, id: str) -> tuple[CaseStore, str, str]:
        """The store of a case, its id there, and the name of the store."""
        if id not in self._home:
            raise UsageError(
                f"reading from the stores {self.name}",
                found=f"no case {id!r}",
                remedy=nearest(id, self._home),
            )
        name, inner = self._home[id]
        return self.stores[name], inner, name


def _by_name(stores: Sequence[CaseStore]) -> dict[str, CaseStore]:
    if not stores:
        raise UsageError(_DOING, expected="at least one store", found="none")
    checksums = [store.checksum for store in stores]
    names = [store.name for store in stores]
    for store in stores:
        if checksums.count(store.checksum) > 1:
            raise UsageError(
                _DOING, expected="each store once", found=f"the store {store.name} twice"
            )
    unique = {
        store.name if names.count(store.name) == 1 else f"{store.name}-{store.checksum[:8]}": store
        for store in stores
    }
    return dict(sorted(unique.items()))


def _shared_target(stores: Mapping[str, CaseStore]) -> TargetSpec:
    (first, store), *others = stores.items()
    for name, other in others:
        differing = [
            f"{field}: {ours!r} in {first}, {theirs!r} in {name}"
            for field in ("kind", "names", "ignored", "threshold")
            if (ours := getattr(store.target, field)) != (theirs := getattr(other.target, field))
        ]
        if differing:
            raise UsageError(
                _DOING,
                expected=f"the same classes in the stores {first} and {name}",
                found="; ".join(differing),
                remedy="prepare both data sets with the same classes",
            )
    return store.target


def _joined_splits(
    stores: Mapping[str, CaseStore],
    wanted: Mapping[str, Mapping[str, str]] | None,
    groups: Mapping[str, str],
) -> dict[str, dict[str, list[str]]]:
    chosen: dict[str, dict[str, str]] = {}
    for name in next(iter(stores.values())).splits:
        plain = name.removesuffix(LEAKS)
        # As it is in every store, and with what leaks wherever that is there.
        for suffixes in (("",), (LEAKS, "")):
            found = {
                store: next((plain + end for end in suffixes if plain + end in one.splits), None)
                for store, one in stores.items()
            }
            inner = {store: split for store, split in found.items() if split is not None}
            if len(inner) == len(stores):
                leaks = any(split.endswith(LEAKS) for split in inner.values())
                chosen[plain + LEAKS if leaks else plain] = inner
    only = {name: only_split(store.splits) for name, store in stores.items()}
    alone = {name: split for name, split in only.items() if split is not None}
    if wanted is not None:
        chosen |= {name: dict(inner) for name, inner in wanted.items()}
    elif len(alone) == len(stores) and len(set(alone.values())) > 1:
        chosen[JOINED] = alone
    joined: dict[str, dict[str, list[str]]] = {}
    for name, inner in chosen.items():
        parts = _joined_parts(stores, name, inner)
        leaks = crossing(parts, groups) is not None
        joined[name if not leaks or name.endswith(LEAKS) else name + LEAKS] = parts
    return joined


def _joined_parts(
    stores: Mapping[str, CaseStore], name: str, inner: Mapping[str, str]
) -> dict[str, list[str]]:
    doing = f"joining stores into the split {name!r}"
    if set(inner) != set(stores):
        raise UsageError(
            doing,
            expected="a split of each of the stores " + ", ".join(stores),
            found=", ".join(inner) or "none",
        )
    parts: dict[str, list[str]] = {}
    for store, split in ((name, inner[name]) for name in stores):
        splits: Splits = stores[store].splits
        if split not in splits:
            raise UsageError(
                doing,
                found=f"no split {split!r} in the store {store}",
                remedy=nearest(split, splits),
            )
        for part, ids in splits[split].items():
            parts.setdefault(part, []).extend(f"{store}/{id}" for id in ids)
    return parts
