"""Reads a window from both sides with separate weights per direction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from segweave.author_weights import HasReleasedNames, ReleasedNames
from segweave.context._recurrent import with_prefix
from segweave.context.base import ContextModule, Prepared, check_map, check_prepared
from segweave.errors import UsageError

DIRECTIONS = ("forward", "reverse")


class BothSides(ContextModule):
    """Two one-sided modules: `forward_net` reads the steps up to the middle one in order,
    `reverse_net` those down to it from the end.

    In a window of S steps the middle one is S // 2. The two outputs, joined [forward, reverse],
    pass through a 1×1 convolution `conv` with bias. Sequence (B, S, C, H, W) → (B, out_channels,
    H, W).

    Args:
        make: returns a new one-sided module at each call.
        out_channels: channels of the map that it returns.
    """

    both_sides = True

    def __init__(self, make: Callable[[], ContextModule], out_channels: int) -> None:
        super().__init__()
        self.forward_net = make()
        self.reverse_net = make()
        self.channels = self.forward_net.channels
        self.out_channels = out_channels
        self.conv = nn.Conv2d(
            self.forward_net.out_channels + self.reverse_net.out_channels, out_channels, 1
        )

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, S, C, H, W) → (B, C_out, H, W)."""
        forward, reverse = self._halves(sequence)
        return self._join(self.forward_net(forward), self.reverse_net(reverse))

    def prepare(self, step: Tensor) -> Prepared:
        """What both directions need of one step; names start with "forward." and "reverse."."""
        return {
            f"{direction}.{name}": value
            for direction, net in zip(DIRECTIONS, self._nets(), strict=True)
            for name, value in check_prepared(net, net.prepare(step)).items()
        }

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps in reading order → (B, C_out, H, W)."""
        middle = self.current(len(prepared))
        forward = [with_prefix(step, "forward.") for step in prepared[: middle + 1]]
        reverse = [with_prefix(step, "reverse.") for step in prepared[middle:]][::-1]
        return self._join(self.forward_net.fuse(forward), self.reverse_net.fuse(reverse))

    def states(self, sequence: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """States of both directions, named "forward.h", "reverse.h", each over the steps of that
        direction in the order in which it reads them; `output` also is that of the whole.

        A name that starts with "forward." or "reverse." asks for that direction alone.
        """
        result: dict[str, Tensor] = {}
        for direction, net, half in zip(
            DIRECTIONS, self._nets(), self._halves(sequence), strict=True
        ):
            other = DIRECTIONS[1 - DIRECTIONS.index(direction)]
            asked = [
                name.removeprefix(f"{direction}.")
                for name in names
                if not name.startswith(f"{other}.")
            ]
            if asked:
                states = net.states(half, list(dict.fromkeys(asked)))
                result.update({f"{direction}.{name}": value for name, value in states.items()})
        if "output" in names:
            result["output"] = self._join(result["forward.output"], result["reverse.output"])
        return result

    def released_names(self) -> ReleasedNames:
        """Those of both directions and of the last convolution."""
        tensors = {"conv.weight": "conv.weight", "conv.bias": "conv.bias"}
        fixed: set[str] = set()
        dead: set[str] = set()
        for direction, net in zip(DIRECTIONS, self._nets(), strict=True):
            if not isinstance(net, HasReleasedNames):
                raise UsageError(
                    "loading a released checkpoint",
                    expected="a context module with released names",
                    found=type(net).__name__,
                )
            names = net.released_names()
            prefix = f"{direction}_net."
            tensors.update({prefix + k: prefix + v for k, v in names.tensors.items()})
            fixed.update(prefix + name for name in names.fixed)
            dead.update(prefix + name for name in names.dead)
        return ReleasedNames(tensors, frozenset(fixed), frozenset(dead))

    def _halves(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.current(sequence.shape[1])
        return sequence[:, : middle + 1], sequence[:, middle:].flip(1)

    def _nets(self) -> tuple[ContextModule, ContextModule]:
        return self.forward_net, self.reverse_net

    def _join(self, forward: Tensor, reverse: Tensor) -> Tensor:
        check_map(self.forward_net, forward)
        check_map(self.reverse_net, reverse, forward.shape[2:])
        result: Tensor = self.conv(torch.cat([forward, reverse], 1))
        return result
