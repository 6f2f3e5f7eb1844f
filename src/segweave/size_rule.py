"""Which sizes of an image a network takes."""

from __future__ import annotations

from collections.abc import Sequence

from segweave.errors import UsageError

Size = tuple[int, int]
"""Height and width in pixels."""


def broken_rule(
    size: Size, *, divisor: int = 1, smallest: int = 1, fixed: Sequence[Size | int] = ()
) -> tuple[str, list[Size]] | None:
    """What is expected of the size of an image, and the nearest sizes that work, where `size` does
    not; None where it does.

    Args:
        size: height and width in pixels.
        divisor: height and width must be multiples of it.
        smallest: height and width must be at least this.
        fixed: the only sizes that work, if not empty.
    """
    height, width = size
    allowed = [(n, n) if isinstance(n, int) else n for n in fixed]
    fits = height % divisor == 0 and width % divisor == 0 and min(height, width) >= smallest
    if fits and (not allowed or size in allowed):
        return None
    if allowed:
        by_distance = sorted(allowed, key=lambda one: abs(one[0] - height) + abs(one[1] - width))
        return "the size " + " or ".join(f"{h}×{w}" for h, w in allowed), by_distance[:1]
    lowest = -(-smallest // divisor) * divisor
    nearby = [
        (
            max(lowest, (height + up * (divisor - 1)) // divisor * divisor),
            max(lowest, (width + up * (divisor - 1)) // divisor * divisor),
        )
        for up in (0, 1)
    ]
    nearby.sort(key=lambda one: abs(one[0] - height) + abs(one[1] - width))
    expected = f"height and width divisible by {divisor} and at least {smallest}"
    return expected, list(dict.fromkeys(nearby))


def check_size(
    name: str,
    size: Size,
    *,
    divisor: int = 1,
    smallest: int = 1,
    fixed: Sequence[Size | int] = (),
) -> None:
    """Raise UsageError naming sizes that work where an image breaks a network's size rule.

    Args:
        name: the network, for the message.
        size: height and width of the image in pixels.
        divisor: see `broken_rule`.
        smallest: see `broken_rule`.
        fixed: see `broken_rule`.
    """
    broken = broken_rule(size, divisor=divisor, smallest=smallest, fixed=fixed)
    if broken is None:
        return
    expected, nearby = broken
    found = f"{size[0]}×{size[1]}"
    raise UsageError(
        f"running {name} on an image of {found}",
        expected=expected,
        found=found,
        remedy="resize or pad to " + " or ".join(f"{h}×{w}" for h, w in nearby),
    )
