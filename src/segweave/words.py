"""Words of lists and counts, for messages."""

from __future__ import annotations

from collections.abc import Sequence


def few(names: Sequence[object], limit: int = 6) -> str:
    """The first entries of a list, and how many more there are: "a, b and 3 more"."""
    rest = len(names) - limit
    shown = ", ".join(str(name) for name in names[:limit])
    return shown + (f" and {rest} more" if rest > 0 else "")
