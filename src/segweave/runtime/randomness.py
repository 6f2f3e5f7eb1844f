"""Random streams derived from what they are for, so that results never depend on workers, batch
layout or resuming.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from segweave.storage import sha256_of_text

Purpose = Literal[
    "network",
    "context",
    "order",
    "crop",
    "augmentation",
    "dropout",
    "box",
    "phantom",
    "calibration",
    "dose",
]


def derive_seed(
    seed: int,
    purpose: Purpose,
    *,
    epoch: int = 0,
    case: str = "",
    slice_index: int = 0,
    name: str = "",
) -> int:
    """A 63-bit seed fixed by its arguments alone.

    Two streams that differ in any argument are independent; `slice_index` also counts optimiser
    steps where `purpose` is "dropout". `name` sets streams of one purpose apart (augmentations).
    """
    text = f"{seed}|{purpose}|{epoch}|{case}|{slice_index}"
    if name:  # without one, the streams are those of the time before there were names
        text += f"|{name}"
    return int.from_bytes(bytes.fromhex(sha256_of_text(text))[:8], "little") >> 1


def numpy_stream(
    seed: int,
    purpose: Purpose,
    *,
    epoch: int = 0,
    case: str = "",
    slice_index: int = 0,
    name: str = "",
) -> np.random.Generator:
    """A NumPy generator for the stream of these arguments (see `derive_seed`)."""
    value = derive_seed(seed, purpose, epoch=epoch, case=case, slice_index=slice_index, name=name)
    return np.random.default_rng(value)
