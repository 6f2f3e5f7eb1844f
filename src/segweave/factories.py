"""Builds a registered class from preset and given options; a wrong option names the nearest right
one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from segweave.errors import UsageError, nearest

T = TypeVar("T")


def build(
    doing: str, entry: Callable[..., T], preset: Mapping[str, Any], given: Mapping[str, Any]
) -> T:
    """Call `entry` with `preset` options overridden by `given`; raises UsageError for an option
    that it does not take.
    """
    known = [
        name
        for name, parameter in inspect.signature(entry).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    for name in given:
        if name not in known:
            raise UsageError(doing, found=f"unknown option {name!r}", remedy=nearest(name, known))
    return entry(**{**preset, **given})
