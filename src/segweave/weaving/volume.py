"""A volume through a woven network: the work of each slice is done once, whatever the windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from segweave.errors import UsageError
from segweave.networks.base import Output
from segweave.weaving.woven import SlicePrepared, WovenNetwork

GetSlice = Callable[[int], Tensor]
WindowIndices = Callable[[int], Sequence[int]]


def volume_outputs(
    woven: WovenNetwork,
    count: int,
    get_slice: GetSlice,
    window_indices: WindowIndices,
    *,
    get_prompt: Callable[[int], Tensor] | None = None,
    next_mask: Callable[[Output], Tensor] | None = None,
) -> Iterator[Output]:
    """The Output of each of `count` slices in turn, equal to running their windows one by one.

    Runs without gradients and without auxiliary outputs. Holds at most one window of
    `SlicePrepared` at a time.

    Args:
        woven: a woven network in eval mode.
        count: number of slices.
        get_slice: index → slice (B, C, H, W).
        window_indices: index → the slices of the window around it, repeated at the edges.
        get_prompt: index → what the network is shown of that slice, for a network with `prompt`:
            boxes (B, 4).
        next_mask: Output → mask (B, 1, H, W), for a network with `feedback` (usually
            `segweave.networks.mask_of`). Such a network runs `feedback.rounds` passes over the
            volume before the first Output of the last pass comes.

    Raises:
        UsageError: training mode, where batch norm and dropout make a slice depend on when it is
            run; a network with `prompt` and no `get_prompt`, or with `feedback` and no `next_mask`.
    """
    if woven.training:
        raise UsageError(
            "running a volume through a woven network",
            expected="a network in eval mode",
            found="training mode",
            remedy="call .eval() first",
        )
    feedback, prompt = woven.feedback, woven.prompt
    if prompt is not None and get_prompt is None:
        raise UsageError(
            "running a volume through a network that is shown what to segment",
            expected=f"get_prompt=, which gives the {prompt.name} of a slice",
            found="none",
        )

    def shown(index: int) -> dict[str, Tensor]:
        return {} if prompt is None or get_prompt is None else {prompt.name: get_prompt(index)}

    if feedback is None:
        yield from _one_pass(
            woven, count, lambda i: woven.prepare(get_slice(i), **shown(i)), window_indices
        )
        return
    if next_mask is None:
        raise UsageError(
            "running a volume through a network with feedback",
            expected="next_mask=, which makes the next mask of an output",
            found="none",
            remedy="give segweave.networks.mask_of",
        )
    masks: list[Tensor] = []

    def prepare(index: int) -> SlicePrepared:
        image = get_slice(index)
        mask = masks[index] if masks else feedback.first(image)
        return woven.prepare(image, **{feedback.name: mask.to(image.dtype)}, **shown(index))

    for _ in range(feedback.rounds - 1):
        masks = [next_mask(out) for out in _one_pass(woven, count, prepare, window_indices)]
    yield from _one_pass(woven, count, prepare, window_indices)


def _one_pass(
    woven: WovenNetwork,
    count: int,
    prepare: Callable[[int], SlicePrepared],
    window_indices: WindowIndices,
) -> Iterator[Output]:
    held: dict[int, SlicePrepared] = {}
    for index in range(count):
        window = list(window_indices(index))
        if woven.is_bare:
            window = [window[woven.current(len(window))]]
        held = {key: value for key, value in held.items() if key in window}
        with torch.no_grad():
            for key in window:
                if key not in held:
                    held[key] = prepare(key)
            output = woven.fuse([held[key] for key in window])
        yield output
