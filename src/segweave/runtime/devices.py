"""Devices: reads `--device auto | cpu | cuda[:i]`, and flushes denormal numbers to zero while a
block runs, because on a CPU they make attention many times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from segweave.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is the first GPU where there is one, else the CPU. Raises
    UsageError for a name that is none and for a GPU that is not there.
    """
    doing = "choosing a device"
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdigit()) or (kind == "cpu" and colon):
        raise UsageError(doing, expected="auto, cpu, cuda or cuda:NUMBER", found=repr(name))
    if kind == "cpu":
        return torch.device("cpu")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number) if number else 0
    if index >= available:
        raise UsageError(
            doing,
            expected=f"one of {available} GPUs" if available else "a GPU that torch can use",
            found=repr(name),
            remedy="use --device cpu, or install a torch build for this machine's GPU",
        )
    return torch.device("cuda", index)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers inside the block, then restore the earlier setting."""
    before = denormals_are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def denormals_are_flushed() -> bool:
    """Whether this thread flushes denormal numbers now (torch has no way to ask)."""
    return not bool((torch.full((1,), 1e-37) * 1e-3).item())


def device_of(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and type of the network's parameters (a CPU's float32 where it has none)."""
    parameter: Any = next(network.parameters(), None)
    if parameter is None:
        return torch.device("cpu"), torch.float32
    return parameter.device, parameter.dtype
