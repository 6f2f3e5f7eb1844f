"""Which class ids the label maps of a data set hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from segweave.formats.table import PICTURES, suffix_of


def scaled_ids(held: Mapping[Path, Collection[int]]) -> tuple[bool, dict[Path, list[int]]]:
    """Whether 255 stands for 1 in the masks (file → the values in it) of a data set, and the ids
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
