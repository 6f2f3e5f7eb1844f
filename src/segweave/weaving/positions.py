"""The positions of weaving: what each slice has to run through, and how the centre goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context.base import ContextModule
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork
from segweave.weaving.woven import WovenNetwork

Carried = Features | Decoded | Output | Tensor
Inputs = dict[str, Tensor]
Maps = tuple[Tensor, ...]
Size = tuple[int, int]


class WovenBottleneck(WovenNetwork):
    """The module stands between encoder and decoder; neighbours are encoded, never decoded."""

    def _centre(self, image: Tensor, inputs: Inputs) -> tuple[Maps, Carried]:
        features = _network(self).encode(image, **inputs)
        return (features.bottleneck,), features

    def _finish(self, carried: Carried, maps: Maps, inputs: Inputs, size: Size) -> Output:
        features = cast(Features, carried)._replace(bottleneck=maps[0])
        return _decoded(_network(self), features, size, self.training)


class WovenSkips(WovenNetwork):
    """One module on each skip, before it meets the upsampled map; neighbours are encoded, never
    decoded.
    """

    def _centre(self, image: Tensor, inputs: Inputs) -> tuple[Maps, Carried]:
        features = _network(self).encode(image, **inputs)
        return features.skips, features

    def _finish(self, carried: Carried, maps: Maps, inputs: Inputs, size: Size) -> Output:
        features = cast(Features, carried)._replace(skips=maps)
        return _decoded(_network(self), features, size, self.training)


class WovenEncoder(WovenNetwork):
    """The module stands beside the encoder: it reads the embedded images, and a 1×1 convolution
    joins its output to the bottleneck. Neighbours are embedded, never encoded.

    The embedding is a convolution with kernel = stride = `network.stride` to the bottleneck's
    channels; its map is brought to the bottleneck's size (bilinear) where the encoder rounds
    sizes otherwise. With `identity` there is neither embedding nor joining convolution.
    """

    def __init__(
        self, network: nn.Module, modules: Sequence[ContextModule], **settings: Any
    ) -> None:
        super().__init__(network, modules, **settings)
        channels = modules[0].channels
        self.embedding: nn.Module | None = None
        self.joining: nn.Module | None = None
        if not self.is_bare:
            stride = int(_network(self).stride)
            self.embedding = nn.Conv2d(self.in_channels, channels, stride, stride=stride)
            self.joining = nn.Conv2d(channels + modules[0].out_channels, channels, 1)

    def _centre(self, image: Tensor, inputs: Inputs) -> tuple[Maps, Carried]:
        features = _network(self).encode(image, **inputs)
        if self.embedding is None:
            return (features.bottleneck,), features
        return self._neighbour(image), features

    def _neighbour(self, image: Tensor) -> Maps:
        if self.embedding is None:
            return super()._neighbour(image)
        return (self.embedding(image),)

    def _joined(self, fused: Sequence[Tensor], current: Maps) -> Maps:
        return tuple(fused)

    def _finish(self, carried: Carried, maps: Maps, inputs: Inputs, size: Size) -> Output:
        features = cast(Features, carried)
        if self.joining is not None:
            beside, own = maps[0], features.bottleneck
            if beside.shape[-2:] != own.shape[-2:]:
                beside = F.interpolate(
                    beside, size=own.shape[-2:], mode="bilinear", align_corners=False
                )
            features = features._replace(bottleneck=self.joining(torch.cat([own, beside], 1)))
        return _decoded(_network(self), features, size, self.training)


class WovenDecoder(WovenNetwork):
    """The module stands between decoder and head; every slice is decoded, the head runs once."""

    def _centre(self, image: Tensor, inputs: Inputs) -> tuple[Maps, Carried]:
        network = _network(self)
        decoded = network.decode(network.encode(image, **inputs))
        return (decoded.map,), decoded

    def _finish(self, carried: Carried, maps: Maps, inputs: Inputs, size: Size) -> Output:
        return _network(self).head(
            cast(Decoded, carried)._replace(map=maps[0]), size, self.training
        )


class WovenOutput(WovenNetwork):
    """The module stands behind the whole network and gives the logits; every slice runs through
    all of the network, which may be any module that returns logits.
    """

    def _centre(self, image: Tensor, inputs: Inputs) -> tuple[Maps, Carried]:
        output = as_output(self.network(image, **inputs), self.network)
        return (output.logits,), output

    def _finish(self, carried: Carried, maps: Maps, inputs: Inputs, size: Size) -> Output:
        return cast(Output, carried)._replace(logits=maps[0])


class WovenSubmodule(WovenNetwork):
    """The module stands behind the submodule named `at`: every slice runs up to it, and in the
    centre's run its map is exchanged.

    The network is any module that returns logits (or an Output) and calls the submodule once, with
    a map (B, C, H, W) as its output. `each` and `fuse` take one run each, so a volume costs two a
    slice; `forward` runs the centre once.
    """

    def _centre(self, image: Tensor, inputs: Inputs) -> tuple[Maps, Carried]:
        with self._watched(stop=True) as seen, suppress(_Reached):
            self.network(image, **inputs)
        return (self._once(seen),), image

    def _finish(self, carried: Carried, maps: Maps, inputs: Inputs, size: Size) -> Output:
        with self._watched(exchange=lambda _: maps[0]) as seen:
            output = self.network(cast(Tensor, carried), **inputs)
        self._once(seen)
        return as_output(output, self.network)

    def forward(self, window: Tensor, **inputs: Tensor) -> Output:
        """(B, S, C, H, W) or (B, C, H, W) → Output of the current slice; one run a slice."""
        images = self._slices(window)
        current = self.current(len(images))
        if self.is_bare:
            return as_output(self.network(images[current], **inputs), self.network)
        others = [self._neighbour(image) for index, image in enumerate(images) if index != current]

        def exchange(own: Tensor) -> Tensor:
            maps = [maps[0] for maps in others]
            maps.insert(current, own)
            self._check((own,))
            return self._joined([self.context[0](torch.stack(maps, 1))], (own,))[0]

        with self._watched(exchange=exchange) as seen:
            output = self.network(images[current], **inputs)
        self._once(seen)
        return as_output(output, self.network)

    @contextmanager
    def _watched(self, *, exchange: Any = None, stop: bool = False) -> Iterator[list[Tensor]]:
        """Collect the submodule's outputs, exchange them, or stop the network behind them.

        A hook that lives as long as one run: replacing the submodule by a wrapper would break
        networks that reach into it, and rename its state.
        """
        seen: list[Tensor] = []

        def hook(_: nn.Module, __: Any, found: Any) -> Any:
            if not isinstance(found, Tensor) or found.ndim != 4:
                raise UsageError(
                    f"running a network woven at {self.at!r}",
                    expected="a submodule that gives one map (batch, channels, height, width)",
                    found=f"shape {tuple(found.shape)}"
                    if isinstance(found, Tensor)
                    else type(found).__name__,
                )
            seen.append(found)
            # A tracer (torch.export, torch.compile) can't be left half-way: there, all of it runs.
            if stop and not torch.compiler.is_compiling():
                raise _Reached
            return found if exchange is None else exchange(found)

        handle = self.network.get_submodule(self.at).register_forward_hook(hook)
        try:
            yield seen
        finally:
            handle.remove()

    def _once(self, seen: list[Tensor]) -> Tensor:
        if len(seen) != 1:
            raise UsageError(
                f"running a network woven at {self.at!r}",
                expected="a submodule that the network calls once a run",
                found=f"{len(seen)} calls",
                remedy="weave at another submodule, or at 'output'",
            )
        return seen[0]


class _Reached(Exception):  # noqa: N818 - a signal, no error
    """The submodule has run; the rest of a neighbour's run is not needed."""


def as_output(found: Any, network: nn.Module) -> Output:
    """What a network returned, as an Output: a tensor is the logits. Raises UsageError for
    anything else.
    """
    if isinstance(found, Output):
        return found
    if isinstance(found, Tensor):
        return Output(logits=found, auxiliary={})
    raise UsageError(
        f"reading what {type(network).__name__} returned",
        expected="logits (batch, classes, height, width) or a segweave Output",
        found=type(found).__name__,
        remedy="wrap the network in a module whose forward returns the logits",
    )


def _network(woven: WovenNetwork) -> SegmentationNetwork:
    return cast(SegmentationNetwork, woven.network)


def _decoded(
    network: SegmentationNetwork, features: Features, size: Size, auxiliary: bool
) -> Output:
    return network.head(network.decode(features), size, auxiliary)
