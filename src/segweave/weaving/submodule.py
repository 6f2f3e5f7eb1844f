"""Weaving at the dotted name of a submodule, in any `nn.Module` that returns logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from segweave.context.base import ContextModule
from segweave.errors import UsageError
from segweave.networks.base import Output, Size
from segweave.weaving.woven import Carried, Inputs, Maps, WovenNetwork

Exchange = Callable[[Tensor], Tensor]
"""The map of the submodule → the map that the rest of the network reads."""


class WovenSubmodule(WovenNetwork):
    """The module is after the submodule named `at`: every slice runs up to there, and in the run of
    the current slice the submodule's map is exchanged.

    The network calls the submodule once, with a map (B, C, H, W) as its output. `prepare` and
    `fuse` take one run each, so that a volume costs two per slice; `forward` runs each slice once.

    Each run is that of a private copy of the modules between the network and the submodule; all
    parameters and buffers are shared. So no call sees the hook of another one, and what a tracer
    (torch.export, torch.compile) follows is the run itself. Plain attributes that those modules set
    on themselves while they run are set on the copy.
    """

    def __init__(
        self, network: nn.Module, modules: Sequence[ContextModule], **settings: Any
    ) -> None:
        super().__init__(network, modules, **settings)
        submodule = network.get_submodule(self.at)
        # A network may hold the submodule under several names and call it by any of them.
        self._names = tuple(
            name
            for name, module in network.named_modules(remove_duplicate=False)
            if module is submodule
        )

    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        maps: list[Tensor] = []

        def stop(current_map: Tensor) -> Tensor:
            maps.append(current_map)
            raise _Reached

        try:
            self._run(self._with_hook(stop), image, inputs, False)
        except _Reached:
            return (maps[0],), image
        raise self._wrong_calls(0)

    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        image = cast(Tensor, carried)
        if self.is_bare:
            return self._run(self.network, image, inputs, auxiliary)
        return self._exchanged(lambda _: maps[0], image, inputs, auxiliary)

    def forward(self, window: Tensor, *, auxiliary: bool | None = None, **inputs: Tensor) -> Output:
        """As in every weaving, with one run per slice."""
        slices = self._slices(window, inputs)
        current = self.current(len(slices))
        image, given = slices[current]
        wanted = self._wanted(auxiliary)
        if self.is_bare:
            return self._run(self.network, image, given, wanted)
        others = [self._neighbour(*one)[0] for i, one in enumerate(slices) if i != current]

        def exchange(current_map: Tensor) -> Tensor:
            self._check_maps((current_map,))
            sequence = torch.stack([*others[:current], current_map, *others[current:]], 1)
            fused = self._checked([self.context[0](sequence)], (current_map,))
            return self._joined(fused, (current_map,))[0]

        return self._exchanged(exchange, image, given, wanted)

    def _exchanged(
        self, exchange: Exchange, image: Tensor, inputs: Inputs, auxiliary: bool
    ) -> Output:
        """The whole network on one slice, with the submodule's map exchanged."""
        calls: list[None] = []

        def counted(current_map: Tensor) -> Tensor:
            calls.append(None)
            return exchange(current_map)

        output = self._run(self._with_hook(counted), image, inputs, auxiliary)
        if len(calls) != 1:
            raise self._wrong_calls(len(calls))
        return output

    def _with_hook(self, exchange: Exchange) -> nn.Module:
        """A copy of the network in which the submodule's map is exchanged."""

        def hook(_: nn.Module, __: Any, result: Any) -> Any:
            if not isinstance(result, Tensor) or result.ndim != 4:
                shape = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else None
                raise UsageError(
                    f"running a network woven at {self.at!r}",
                    expected="a submodule that returns one map (batch, channels, height, width)",
                    found=shape or type(result).__name__,
                )
            return exchange(result)

        submodule = self.network.get_submodule(self.at)
        hooked = _shallow_copy(submodule)
        # `register_forward_hook` would draw a number from a counter of the process, which no tracer
        # follows; those numbers are never negative.
        hooked.__dict__["_forward_hooks"] = {**submodule._forward_hooks, -1: hook}
        network = _shallow_copy(self.network)
        for name in self._names:
            parent = network
            *path, last = name.split(".")
            for step in path:
                child = _shallow_copy(cast(nn.Module, parent._modules[step]))
                parent._modules[step] = child
                parent = child
            if parent._modules[last] is submodule:
                parent._modules[last] = hooked
        return network

    def _wrong_calls(self, calls: int) -> UsageError:
        return UsageError(
            f"running a network woven at {self.at!r}",
            expected="a submodule that the network calls once in a run",
            found=f"{calls} calls",
            remedy="weave at another submodule, or at 'output'",
        )


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """The submodule has run; the rest of a neighbour's run is not needed."""


def _shallow_copy(module: nn.Module) -> nn.Module:
    """The same module with a separate table of submodules; tensors and submodules are shared."""
    # Without the constructor, and without `__new__` of classes that make a class per instance.
    copy: nn.Module = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    copy.__dict__["_modules"] = dict(module._modules)
    return copy
