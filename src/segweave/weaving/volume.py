"""A volume through a woven network: each slice's own work is done once, whatever the windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from segweave.errors import UsageError
from segweave.networks.base import Output
from segweave.weaving.woven import SlicePrepared, WovenNetwork


def volume_outputs(
    woven: WovenNetwork,
    count: int,
    get_slice: Callable[[int], Tensor],
    window_indices: Callable[[int], Sequence[int]],
) -> Iterator[Output]:
    """The Output of each of `count` slices in turn, equal to running their windows one by one.

    `get_slice(i)` gives slice i as (B, C, H, W); `window_indices(i)` gives the slices of the window
    around slice i, with repetitions at edges. No more than one window's `SlicePrepared` are held at
    a time. Runs without gradients. Raises UsageError in training mode, where batch norm and dropout
    make a slice depend on when it is run.
    """
    if woven.training:
        raise UsageError(
            "running a volume through a woven network",
            expected="a network in eval mode",
            found="training mode",
            remedy="call .eval() first",
        )
    held: dict[int, SlicePrepared] = {}
    for index in range(count):
        window = list(window_indices(index))
        if woven.is_bare:
            window = [window[woven.current(len(window))]]
        held = {key: value for key, value in held.items() if key in window}
        with torch.no_grad():
            for key in window:
                if key not in held:
                    held[key] = woven.each(get_slice(key))
            output = woven.fuse([held[key] for key in window])
        yield output
