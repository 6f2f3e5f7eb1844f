"""The positions of weaving that have a name: what each slice runs through, and how the network
finishes the current one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context.base import ContextModule
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.weaving.woven import Carried, Inputs, Maps, WovenNetwork


class WovenBottleneck(WovenNetwork):
    """The module is between encoder and decoder; neighbours are encoded, never decoded."""

    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        features = _network(self).encode(image, **inputs)
        return (features.bottleneck,), features

    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        features = cast(Features, carried)._replace(bottleneck=maps[0])
        return _decoded(_network(self), features, size, auxiliary)


class WovenSkips(WovenNetwork):
    """One module on each skip, before it meets the upsampled map; neighbours are encoded, never
    decoded.
    """

    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        features = _network(self).encode(image, **inputs)
        return features.skips, features

    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        features = cast(Features, carried)._replace(skips=maps)
        return _decoded(_network(self), features, size, auxiliary)


class WovenEncoder(WovenNetwork):
    """The module is beside the encoder: it reads the embedded images, and a 1×1 convolution joins
    its output to the bottleneck. Neighbours are embedded, never encoded.

    The embedding is a convolution with kernel = stride = `network.stride` to the bottleneck's
    channels; its map is brought to the bottleneck's size (bilinear) where the encoder rounds
    sizes differently. With `identity` there is neither embedding nor joining convolution.
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

    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        features = _network(self).encode(image, **inputs)
        if self.embedding is None:
            return (features.bottleneck,), features
        return self._neighbour(image, inputs), features

    def _neighbour(self, image: Tensor, inputs: Inputs) -> Maps:
        if self.embedding is None:
            return super()._neighbour(image, inputs)
        return (self.embedding(image),)

    def _joined(self, fused: Sequence[Tensor], current: Maps) -> Maps:
        return tuple(fused)

    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        features = cast(Features, carried)
        if self.joining is not None:
            beside, bottleneck = maps[0], features.bottleneck
            if beside.shape[-2:] != bottleneck.shape[-2:]:
                beside = F.interpolate(
                    beside, size=bottleneck.shape[-2:], mode="bilinear", align_corners=False
                )
            joined = self.joining(torch.cat([bottleneck, beside], 1))
            features = features._replace(bottleneck=joined)
        return _decoded(_network(self), features, size, auxiliary)


class WovenDecoder(WovenNetwork):
    """The module is between decoder and head; every slice is decoded, the head runs once."""

    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        network = _network(self)
        decoded = network.decode(network.encode(image, **inputs))
        return (decoded.map,), decoded

    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        decoded = cast(Decoded, carried)._replace(map=maps[0])
        return _network(self).head(decoded, size, auxiliary)


class WovenOutput(WovenNetwork):
    """The module is after the whole network and returns the logits; every slice runs through all of
    the network, which may be any module that returns logits.
    """

    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        # A module that takes no `auxiliary=` returns the same whether they are wanted or not.
        asks = self._takes_auxiliary
        output = self._run(self.network, image, inputs, bool(auxiliary) if asks else True)
        return (output.logits,), (image if auxiliary is None and asks else output)

    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        if not auxiliary:
            return Output(logits=maps[0], auxiliary={})
        if isinstance(carried, Tensor):
            carried = self._run(self.network, carried, inputs, True)
        return cast(Output, carried)._replace(logits=maps[0])


def _network(woven: WovenNetwork) -> SegmentationNetwork:
    return cast(SegmentationNetwork, woven.network)


def _decoded(
    network: SegmentationNetwork, features: Features, size: Size, auxiliary: bool
) -> Output:
    return network.head(network.decode(features), size, auxiliary)
