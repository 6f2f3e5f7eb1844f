"""Small synthetic cases that several tests of this package share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segweave.data.case import Case, Provenance, SourceGrid
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter

TARGET = TargetSpec(names=("background", "a", "b", "c"))


def made_case(id: str, slices: int = 4, size: tuple[int, int] = (10, 12), group: str = "") -> Case:
    rng = np.random.default_rng([*id.encode()])
    affine = np.diag([10.0, 1.5, 1.5, 1.0])[[2, 1, 0, 3]]
    return Case(
        id=id,
        group=group or id,
        image=rng.integers(0, 1000, (slices, 1, *size)).astype(np.int16),
        label=rng.integers(0, 4, (slices, *size)).astype(np.uint8),
        stack="space",
        affine=affine,
        spacing=(10.0, 1.5, 1.5),
        source_grid=SourceGrid((2, 1, 0), (False, True, False), (size[1], size[0], slices)),
        provenance=Provenance(f"{id}.nii.gz", "0" * 64, "test 1"),
        attributes={"phase": "ED", "frame": 1},
    )


def made_store(path: Path, count: int = 3, slices: int = 4) -> Store:
    with StoreWriter(path, "made", TARGET) as writer:
        for number in range(count):
            writer.add(made_case(f"case{number}", slices))
        return writer.finish()
