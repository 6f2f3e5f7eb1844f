"""Context modules: they read a short sequence of feature maps and return one. Knows nothing of
networks or data.
"""

from __future__ import annotations

import inspect
from typing import Any

from segweave import registry
from segweave.context._both_sides import BothSides
from segweave.context.base import ContextModule, Prepared, built, check_module
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
    """A context module by name.

    Args:
        name: one of `list_contexts()`.
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns, by default `channels`.
        form: "paper" (as printed) or "released" (as the authors' code computes).
        both_sides: read a window from both sides (`BothSides`), with its middle step as the current
            one. Controls are never wrapped, they only take the middle step as the current one.
        options: those of the module; the reference lists them.

    Returns:
        A module that maps a sequence (B, T, C, H, W) to a map (B, C_out, H, W).

    Raises:
        UsageError: an unknown name, form or option, with the nearest one that exists.
        InputError: a plug-in that breaks the contract of a context module, with its file.

    Example:
        >>> import torch
        >>> from segweave import create_context
        >>> module = create_context("sa-lstm", 16, both_sides=True)
        >>> tuple(module(torch.zeros(2, 3, 16, 8, 8)).shape)
        (2, 16, 8, 8)
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
    parameters = built(doing, entry, lambda: inspect.signature(entry).parameters)
    preset = {**card.options, "channels": channels}
    if "form" in parameters:
        preset["form"] = form

    def make(out_channels: int | None) -> ContextModule:
        module = built(doing, entry, lambda: build(doing, entry, preset, options))
        check_module(doing, module, channels, out_channels, entry)
        return module

    if both_sides and not control:
        return BothSides(lambda: make(None), width)
    if "both_sides" in parameters:
        preset["both_sides"] = both_sides
    if "out_channels" in parameters:
        preset["out_channels"] = width
    elif width != channels:
        raise UsageError(doing, expected=f"out_channels = channels = {channels}", found=str(width))
    return make(width)
