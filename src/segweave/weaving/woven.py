"""What a network and its context modules become together: per-slice work, per-window work, and one
forward that equals both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from segweave.author_weights import HasReleasedNames, ReleasedNames
from segweave.context.base import ContextModule, Prepared
from segweave.context.identity import Identity
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output


class SlicePrepared(NamedTuple):
    """What `WovenNetwork.each` keeps of one slice.

    `steps` is what the context modules prepared of it, one entry a place; `maps` are the maps that
    they read, and `carried` is what the network needs to go on where this slice is the centre.
    """

    steps: tuple[Prepared, ...]
    maps: tuple[Tensor, ...]
    carried: Features | Decoded | Output | Tensor
    inputs: dict[str, Tensor]
    size: tuple[int, int]


class WovenNetwork(nn.Module, ABC):
    """A network with context modules in it; made by `weave`.

    `forward` takes a window (B, S, C, H, W), or (B, C, H, W) as a window of one, and gives the
    Output of the slice at `current(S)`. It equals `fuse([each(slice) for each slice])`; over a
    volume, `each` runs once a slice. Auxiliary outputs are those of the centre.

    Slices run through the network one after the other, in reading order, each as a batch of its
    own: batch norms in training mode see one slice position at a time. `network` is the network
    that was given, not a copy. State names start with `network.` and `context.PLACE.`.
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[ContextModule],
        *,
        at: str,
        slices: int,
        join: str,
        in_channels: int | None,
        classes: int | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.context = nn.ModuleList(modules)
        self.at = at
        self.slices = slices
        self.join = join
        self._in_channels = in_channels
        self._classes = classes

    @property
    def in_channels(self) -> int:
        """Channels of a slice; raises UsageError where the network doesn't say."""
        return self._known("in_channels", self._in_channels)

    @property
    def classes(self) -> int:
        """Channels of the logits; raises UsageError where neither the network nor `weave` said."""
        return self._known("classes", self._classes)

    @property
    def parameters_added(self) -> int:
        """How many parameters the weaving added to those of the bare network."""
        own = {id(parameter) for parameter in self.network.parameters()}
        return sum(p.numel() for p in self.parameters() if id(p) not in own)

    @property
    def is_bare(self) -> bool:
        """Whether every context module is `identity`, so that this is the bare network."""
        return all(isinstance(module, Identity) for module in self.context)

    def current(self, steps: int) -> int:
        """Index of the slice to segment in a window of `steps`."""
        return cast(ContextModule, self.context[0]).current(steps)

    def each(self, image: Tensor, **inputs: Tensor) -> SlicePrepared:
        """One slice (B, C, H, W) → all that does not depend on its neighbours.

        `inputs` are further inputs of the network; they count where this slice is the centre.
        """
        maps, carried = self._centre(image, inputs)
        self._check(maps)
        steps = tuple(m.prepare(x) for m, x in zip(self._modules_list(), maps, strict=True))
        return SlicePrepared(steps, maps, carried, inputs, _size(image))

    def fuse(self, window: Sequence[SlicePrepared]) -> Output:
        """Prepared slices of a window in reading order → Output of the current one."""
        centre = window[self.current(len(window))]
        fused = [
            module.fuse([prepared.steps[place] for prepared in window])
            for place, module in enumerate(self._modules_list())
        ]
        return self._finish(
            centre.carried, self._joined(fused, centre.maps), centre.inputs, centre.size
        )

    def forward(self, window: Tensor, **inputs: Tensor) -> Output:
        """(B, S, C, H, W) or (B, C, H, W) → Output of the current slice. `inputs` are further
        inputs of the network for that slice.
        """
        images = self._slices(window)
        current = self.current(len(images))
        if self.is_bare:
            images, current = [images[current]], 0
        sequence: list[tuple[Tensor, ...]] = []
        for index, image in enumerate(images):
            if index == current:
                maps, carried = self._centre(image, inputs)
            else:
                maps = self._neighbour(image)
            self._check(maps)
            sequence.append(maps)
        # Stacking would hand the current map on in another memory layout, and a convolution may
        # round differently there: `identity` promises the bare network bit for bit.
        fused = [
            sequence[current][place]
            if isinstance(module, Identity)
            else module(torch.stack([maps[place] for maps in sequence], 1))
            for place, module in enumerate(self._modules_list())
        ]
        return self._finish(
            carried, self._joined(fused, sequence[current]), inputs, _size(images[current])
        )

    def released_names(self) -> ReleasedNames:
        """The authors' names of a whole model's tensors: `encoder.` for the network, `lstmlayer.`
        for the context module behind it.

        Raises UsageError for a weaving at another place than `output`, or of parts without released
        names.
        """
        parts = {
            "network.": ("encoder.", self.network),
            "context.0.": ("lstmlayer.", self.context[0]),
        }
        for _, module in parts.values():
            if self.at != "output" or not isinstance(module, HasReleasedNames):
                raise UsageError(
                    "loading a released checkpoint into a woven network",
                    expected="a whole released model: a released network with a module in form "
                    "'released' at position 'output'",
                    found=f"{type(module).__name__} in a weaving at {self.at!r}",
                    remedy="make one with segweave.weaving.author_models.released_model, or load "
                    "the checkpoint into its .network or .context[0]",
                )
        tensors: dict[str, str] = {}
        fixed: set[str] = set()
        dead: set[str] = set()
        for ours, (theirs, module) in parts.items():
            assert isinstance(module, HasReleasedNames)
            names = module.released_names()
            tensors |= {ours + own: theirs + released for own, released in names.tensors.items()}
            fixed |= {theirs + released for released in names.fixed}
            dead |= {theirs + released for released in names.dead}
        return ReleasedNames(tensors=tensors, fixed=frozenset(fixed), dead=frozenset(dead))

    def extra_repr(self) -> str:
        """Position, window and added parameters, for printing."""
        return (
            f"at={self.at!r}, slices={self.slices}, join={self.join!r}, "
            f"parameters_added={self.parameters_added}"
        )

    @abstractmethod
    def _centre(
        self, image: Tensor, inputs: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], Features | Decoded | Output | Tensor]:
        """One slice → the maps that the context modules read, and what the network goes on with."""

    def _neighbour(self, image: Tensor) -> tuple[Tensor, ...]:
        """The maps of a slice that is not the centre of the window, for as little as they cost."""
        return self._centre(image, {})[0]

    @abstractmethod
    def _finish(
        self,
        carried: Features | Decoded | Output | Tensor,
        maps: tuple[Tensor, ...],
        inputs: dict[str, Tensor],
        size: tuple[int, int],
    ) -> Output:
        """The centre's network from the woven maps on."""

    def _joined(self, fused: Sequence[Tensor], current: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.join == "replace":
            return tuple(fused)
        return tuple(
            own if isinstance(module, Identity) else own + new
            for module, new, own in zip(self._modules_list(), fused, current, strict=True)
        )

    def _modules_list(self) -> list[ContextModule]:
        return [cast(ContextModule, module) for module in self.context]

    def _slices(self, window: Tensor) -> list[Tensor]:
        if window.ndim == 4:
            return [window]
        if window.ndim != 5 or window.shape[1] == 0:
            raise UsageError(
                f"running a network woven at {self.at!r}",
                expected="a window (batch, slices, channels, height, width) or one image "
                "(batch, channels, height, width)",
                found=f"shape {tuple(window.shape)}",
            )
        return list(window.unbind(1))

    def _check(self, maps: tuple[Tensor, ...]) -> None:
        expected = [module.channels for module in self._modules_list()]
        found = [int(m.shape[1]) if m.ndim == 4 else -1 for m in maps]
        if found != expected:
            raise UsageError(
                f"running a network woven at {self.at!r}",
                expected=f"maps (batch, channels, height, width) with {expected} channels",
                found="shapes " + ", ".join(str(tuple(m.shape)) for m in maps),
                remedy="the network's `channels`, or `channels=` of weave, must say what it gives",
            )

    def _known(self, name: str, value: int | None) -> int:
        if value is None:
            raise UsageError(
                f"asking a network woven at {self.at!r} for its {name}",
                expected=f"a network with the attribute {name!r}",
                found=type(self.network).__name__,
                remedy=f"set network.{name} before weaving"
                + (", or give classes= to weave" if name == "classes" else ""),
            )
        return value


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])
