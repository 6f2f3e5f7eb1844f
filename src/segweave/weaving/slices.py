"""How slices run through a woven network: at each position that has a name, what each slice runs
through and how the network finishes the current one; over a volume, the work of each slice once,
whatever the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context.base import ContextModule
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.weaving.woven import Carried, Inputs, Maps, SlicePrepared, WovenNetwork

GetSlice = Callable[[int], Tensor]
WindowIndices = Callable[[int], Sequence[int]]


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


def volume_outputs(
    woven: WovenNetwork,
    count: int,
    get_slice: GetSlice,
    window_indices: WindowIndices,
    *,
    get_prompt: Callable[[int], Tensor] | None = None,
    next_mask: Callable[[Output], Tensor] | None = None,
) -> Iterator[Output]:
    """The Output of each of `count` slices in turn, equal to running their windows one by one.

    Runs without gradients and without auxiliary outputs. Holds at most one window of
    `SlicePrepared` at a time.

    Args:
        woven: a woven network in eval mode.
        count: number of slices.
        get_slice: index → slice (B, C, H, W).
        window_indices: index → the slices of the window around it, repeated at the edges.
        get_prompt: index → what the network is shown of that slice, for a network with `prompt`:
            boxes (B, 4).
        next_mask: Output → mask (B, 1, H, W), for a network with `feedback` (usually
            `segweave.networks.mask_of`). Such a network runs `feedback.rounds` passes over the
            volume before the first Output of the last pass comes.

    Raises:
        UsageError: training mode, where batch norm and dropout make a slice depend on when it is
            run; a network with `prompt` and no `get_prompt`, or with `feedback` and no `next_mask`.
    """
    if woven.training:
        raise UsageError(
            "running a volume through a woven network",
            expected="a network in eval mode",
            found="training mode",
            remedy="call .eval() first",
        )
    feedback, prompt = woven.feedback, woven.prompt
    if prompt is not None and get_prompt is None:
        raise UsageError(
            "running a volume through a network that is shown what to segment",
            expected=f"get_prompt=, which gives the {prompt.name} of a slice",
            found="none",
        )

    def shown(index: int) -> dict[str, Tensor]:
        return {} if prompt is None or get_prompt is None else {prompt.name: get_prompt(index)}

    if feedback is None:
        yield from _one_pass(
            woven, count, lambda i: woven.prepare(get_slice(i), **shown(i)), window_indices
        )
        return
    if next_mask is None:
        raise UsageError(
            "running a volume through a network with feedback",
            expected="next_mask=, which makes the next mask of an output",
            found="none",
            remedy="give segweave.networks.mask_of",
        )
    masks: list[Tensor] = []

    def prepare(index: int) -> SlicePrepared:
        image = get_slice(index)
        mask = masks[index] if masks else feedback.first(image)
        return woven.prepare(image, **{feedback.name: mask.to(image.dtype)}, **shown(index))

    for _ in range(feedback.rounds - 1):
        masks = [next_mask(out) for out in _one_pass(woven, count, prepare, window_indices)]
    yield from _one_pass(woven, count, prepare, window_indices)


def _one_pass(
    woven: WovenNetwork,
    count: int,
    prepare: Callable[[int], SlicePrepared],
    window_indices: WindowIndices,
) -> Iterator[Output]:
    held: dict[int, SlicePrepared] = {}
    for index in range(count):
        window = list(window_indices(index))
        if woven.is_bare:
            window = [window[woven.current(len(window))]]
        held = {key: value for key, value in held.items() if key in window}
        with torch.no_grad():
            for key in window:
                if key not in held:
                    held[key] = prepare(key)
            output = woven.fuse([held[key] for key in window])
        yield output
