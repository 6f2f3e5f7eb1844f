"""Windows: which slices of a stack are read together to segment the middle one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from segweave.errors import UsageError, nearest

Edge = Literal["repeat", "released"]


def window_indices(
    count: int, index: int, slices: int, edge: Edge = "repeat", gaps: Sequence[int] = ()
) -> list[int]:
    """The `slices` slice numbers, in order, of the window around slice `index` of `count`.

    `gaps` lists slice numbers before which the stack is interrupted: no window reaches across one.
    Edge rules: `repeat` takes the outermost slice again. `released` is what the released loader
    trains on: at an edge the neighbours are those of the nearest slice that has them all, the
    middle stays `index`, so that the first slice of four reads (0, 0, 2) and the last (1, 3, 3); it
    is known for windows of three alone. Where the uninterrupted part is shorter than the window,
    `released` has no such slice (its program stops) and repeats edges too. Raises UsageError for
    numbers that make no window.
    """
    if slices < 1 or slices % 2 == 0:
        raise UsageError(
            "making a window", expected="an odd number of slices (1, 3, 5, ...)", found=str(slices)
        )
    if not 0 <= index < count:
        raise UsageError(
            "making a window", expected=f"a slice number in 0..{count - 1}", found=str(index)
        )
    if edge not in ("repeat", "released"):
        raise UsageError(
            "making a window",
            found=f"edge rule {edge!r}",
            remedy=nearest(str(edge), ("repeat", "released")),
        )
    if edge == "released" and slices > 3:
        raise UsageError(
            "making a window",
            expected="three slices, for which the released edge rule is known",
            found=str(slices),
            remedy="choose edge: repeat",
        )
    first = max((gap for gap in gaps if gap <= index), default=0)
    last = min((gap for gap in gaps if index < gap < count), default=count) - 1
    reach = slices // 2
    if edge == "released" and last - first + 1 >= slices:
        centre = min(max(index, first + reach), last - reach)
        window = list(range(centre - reach, centre + reach + 1))
        window[reach] = index
        return window
    return [min(max(index + step, first), last) for step in range(-reach, reach + 1)]
