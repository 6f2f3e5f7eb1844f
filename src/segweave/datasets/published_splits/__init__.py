"""The splits that publications use, as data: one JSON file per data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segweave.data.splits import cases_of
from segweave.errors import UsageError, nearest
from segweave.storage import read_json


@dataclass(frozen=True)
class Split:
    """A published split: part → groups, with where it comes from."""

    name: str
    source: str
    parts: dict[str, list[str]]

    def cases(self, groups: Mapping[str, str]) -> dict[str, list[str]]:
        """Part → ids of the cases (id → group) that are there, in their own order."""
        return cases_of(self.parts, groups)


def load_split(dataset: str) -> Split:
    """The split that ships for a data set; raises UsageError for a name without one."""
    folder = Path(__file__).parent
    known = {path.stem: path for path in sorted(folder.glob("*.json"))}
    if dataset not in known:
        raise UsageError("choosing a split", found=repr(dataset), remedy=nearest(dataset, known))
    raw = read_json(known[dataset], "reading a split", formats=(1,), expected="a split")
    return Split(raw["name"], raw["source"], raw["parts"])
