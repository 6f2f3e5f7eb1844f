"""Checks and completes the options that the context modules share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from segweave.errors import UsageError, nearest

Form = Literal["paper", "released"]
Axis = Literal["positions", "channels"]
Combination = Literal["linear", "relu"]
CellKind = Literal["lstm", "gru"]
PositionCode = Literal["trainable", "sine", "none"]

StateNames = str | Sequence[str]
"""One state, or several that are combined."""


def choice(what: str, value: str, known: Sequence[str]) -> str:
    """`value` if it is one of `known`, else UsageError with the nearest one."""
    if value not in known:
        raise UsageError(
            f"creating a context module: option {what}",
            expected=" or ".join(repr(k) for k in known),
            found=repr(value),
            remedy=nearest(str(value), known),
        )
    return value


def attention_of(
    form: Form, attention: Axis | None, size: float | None, released_size: int
) -> tuple[Axis, float | None]:
    """What attends, and the number under the root, where the form decides what is not given.

    Args:
        form: "paper": between positions; "released": between channels.
        attention: the axis, or None.
        size: the number under the root, or None (form paper: the length of the vectors).
        released_size: the number under the root in form released, that of the training script.
    """
    released = form == "released"
    axis: Axis = attention or ("channels" if released else "positions")
    choice("attention", axis, ("positions", "channels"))
    return axis, released_size if size is None and released else size


def check_cell(form: Form, cell: CellKind) -> None:
    """Raise UsageError for a form or a kind of cell that does not exist."""
    choice("form", form, ("paper", "released"))
    choice("cell", cell, ("lstm", "gru"))


def widths(hidden_channels: int | Sequence[int] | None, channels: int) -> tuple[int, ...]:
    """Hidden width of each layer; by default one layer as wide as the input."""
    if hidden_channels is None:
        hidden_channels = (channels,)
    elif isinstance(hidden_channels, int):
        hidden_channels = (hidden_channels,)
    result = tuple(int(width) for width in hidden_channels)
    if channels < 1 or not result or min(result) < 1:
        raise UsageError(
            "creating a context module",
            expected="channels ≥ 1 and hidden_channels with at least one layer, each width ≥ 1",
            found=f"channels={channels}, hidden_channels={result}",
        )
    return result


def odd_kernel(kernel_size: int | None, form: Form) -> int:
    """The kernel's side: by default 3 in form paper, 5 in form released; raises UsageError unless
    odd.
    """
    if kernel_size is None:
        return 5 if form == "released" else 3
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError(
            "creating a context module: option kernel_size",
            expected="an odd number: states keep the size of the map, with equal padding",
            found=str(kernel_size),
            remedy=f"use {max(1, kernel_size - 1)} or {max(1, kernel_size + 1)}",
        )
    return kernel_size


def state_names(what: str, given: StateNames, known: Collection[str]) -> tuple[str, ...]:
    """The names of the states that make up the query, key or value, each one of `known`."""
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise UsageError(
            f"creating a context module: option {what}",
            expected="at least one of " + ", ".join(known),
            found="none",
        )
    for name in names:
        if name not in known:
            raise UsageError(
                f"creating a context module: option {what}",
                expected="states among " + ", ".join(known),
                found=repr(name),
                remedy=nearest(name, known),
            )
    return names


def gate_names(cell: CellKind) -> tuple[str, ...]:
    """The gates and the candidate that a cell of this kind has."""
    return ("i", "f", "o", "g") if cell == "lstm" else ("i", "f", "r", "g")
