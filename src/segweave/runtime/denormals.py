"""Flushes denormal numbers to zero while a block runs: on a CPU they make attention many times
slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers inside the block, then put back what was set before."""
    before = denormals_are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def denormals_are_flushed() -> bool:
    """Whether this thread flushes denormal numbers now (torch has no way to ask)."""
    return not bool((torch.full((1,), 1e-37) * 1e-3).item())
