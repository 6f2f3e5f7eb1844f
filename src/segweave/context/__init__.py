"""Context modules: they read a short sequence of feature maps and return one. Knows nothing of
networks or data.
"""

from __future__ import annotations

import inspect
from typing import Any

from segweave import registry
from segweave.context._both_sides import BothSides
from segweave.context.base import ContextModule, Prepared
from segweave.errors import UsageError
from segweave.registry import build

__all__ = ["BothSides", "ContextModule", "Prepared", "create_context", "list_contexts"]


def list_contexts() -> list[str]:
    """Names of all context modules, ablations and controls, plug-ins included."""
    return list(registry.contexts.cards())


def create_context(
    name: str,
    channels: int,
    *,
    out_channels: int | None = None,
    form: str = "paper",
    both_sides: bool = False,
    **options: Any,
) -> ContextModule:
    """A context module by name, for maps of `channels` channels.

    `out_channels` (by default `channels`) is what it returns. With `both_sides` it reads a window
    from both sides (`BothSides`); controls are never wrapped, they take the middle step as the
    current one. Raises UsageError for an unknown name, form or option, naming the nearest one.
    """
    card = registry.contexts.card(name)
    entry = registry.contexts.entry(name)
    doing = f"creating the context module {name!r}"
    control = card.kind == "control"
    if form not in card.forms and not control:
        raise UsageError(doing, expected="form " + " or ".join(card.forms), found=repr(form))
    width = channels if out_channels is None else out_channels
    if channels < 1 or width < 1:
        raise UsageError(
            doing,
            expected="at least one channel in and out",
            found=f"channels={channels}, out_channels={width}",
        )
    taken = inspect.signature(entry).parameters
    preset = {**card.options, "channels": channels}
    if "form" in taken:
        preset["form"] = form
    if both_sides and not control:
        return BothSides(lambda: build(doing, entry, preset, options), width)
    if "both_sides" in taken:
        preset["both_sides"] = both_sides
    if "out_channels" in taken:
        preset["out_channels"] = width
    elif width != channels:
        raise UsageError(doing, expected=f"out_channels = channels = {channels}", found=str(width))
    return build(doing, entry, preset, options)
