"""A network and its context modules together: work per slice, work per window, and a `forward` that
equals both.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from segweave.author_weights import HasReleasedNames, ReleasedNames
from segweave.context.base import ContextModule, Prepared, check_map, check_prepared
from segweave.context.identity import Identity
from segweave.errors import UsageError
from segweave.networks.base import (
    Decoded,
    Features,
    Feedback,
    Output,
    Prompt,
    Size,
    check_names,
)

Inputs = dict[str, Tensor]
"""What `network.feedback` and `network.prompt` declare, by name: nothing for most networks."""

Maps = tuple[Tensor, ...]
"""The maps (B, C, H, W) of one slice that the context modules read, one per place."""

Carried = Features | Decoded | Output | Tensor
"""What the network needs to finish a slice: its own intermediate result, or the image."""


class SlicePrepared(NamedTuple):
    """What `WovenNetwork.prepare` keeps of one slice.

    Attributes:
        steps: what the context modules prepared of it, one entry per place.
        maps: the maps (B, C, H, W) that the context modules read, one per place.
        carried: what the network needs to finish this slice where it is the current one.
        inputs: what the network's `feedback` and `prompt` declare, or nothing.
        size: height and width of the image in pixels.
    """

    steps: tuple[Prepared, ...]
    maps: Maps
    carried: Carried
    inputs: Inputs
    size: Size


class WovenNetwork(nn.Module, ABC):
    """A network with context modules in it; `weave` creates it.

    `forward` takes a window (B, S, C, H, W), or one image (B, C, H, W) as a window of one, and
    returns the Output of the slice at index `current(S)`. It equals `fuse([prepare(slice) for each
    slice])`; over a volume, `prepare` runs once per slice.

    Slices run through the network one after the other, in reading order, each as a separate batch:
    batch norms in training mode see one slice position at a time. A call leaves no state behind,
    so that one instance may serve several threads.

    Attributes:
        network: the network that was given to `weave`, not a copy. Its tensors are named
            `network.…` in the state dict.
        context: the context modules, one per place; their tensors are named `context.PLACE.…`.
        at: the position.
        slices: length of the window.
        join: "add" or "replace".
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
        self._takes_auxiliary = "auxiliary" in inspect.signature(network.forward).parameters

    @property
    def in_channels(self) -> int:
        """Channels of a slice; raises UsageError where the network does not declare them."""
        return self._declared("in_channels", self._in_channels)

    @property
    def classes(self) -> int:
        """Channels of the logits; raises UsageError where neither network nor `weave` knows."""
        return self._declared("classes", self._classes)

    @property
    def feedback(self) -> Feedback | None:
        """The mask that the network reads besides the image, as the network declares it."""
        return getattr(self.network, "feedback", None)

    @property
    def prompt(self) -> Prompt | None:
        """What the network is shown besides the image, as the network declares it."""
        return getattr(self.network, "prompt", None)

    @property
    def parameters_added(self) -> int:
        """Number of parameters that weaving added to those of the network."""
        before = {id(parameter) for parameter in self.network.parameters()}
        return sum(p.numel() for p in self.parameters() if id(p) not in before)

    @property
    def is_bare(self) -> bool:
        """Whether every context module is `identity`, so that this is the bare network."""
        return all(isinstance(module, Identity) for module in self.context)

    def current(self, steps: int) -> int:
        """Index of the slice to segment in a window of `steps` slices."""
        return cast(ContextModule, self.context[0]).current(steps)

    def prepare(self, image: Tensor, **inputs: Tensor) -> SlicePrepared:
        """Everything about one slice that does not depend on its neighbours.

        Args:
            image: the slice (B, C, H, W).
            inputs: of this slice, the mask (B, 1, H, W) of a network with `feedback`, the box (B,
                4) of one with a prompt.

        Raises:
            UsageError: an image, a mask or a box that the network does not take.
        """
        self._check_inputs(inputs)
        maps, carried = self._centre(image, inputs, None)
        self._check_maps(maps)
        steps = tuple(
            check_prepared(module, module.prepare(x))
            for module, x in zip(self._modules_list(), maps, strict=True)
        )
        return SlicePrepared(steps, maps, carried, inputs, _size(image))

    def fuse(self, window: Sequence[SlicePrepared], *, auxiliary: bool | None = None) -> Output:
        """The Output of the current slice of a window.

        Args:
            window: prepared slices in reading order.
            auxiliary: whether to compute the auxiliary outputs; None: in training mode only. At
                `output` this runs the current slice through the network once more.
        """
        centre = window[self.current(len(window))]
        fused = [
            centre.maps[place]
            if isinstance(module, Identity)
            else module.fuse([prepared.steps[place] for prepared in window])
            for place, module in enumerate(self._modules_list())
        ]
        maps = self._joined(self._checked(fused, centre.maps), centre.maps)
        wanted = self._wanted(auxiliary)
        return self._finish(centre.carried, maps, centre.inputs, centre.size, wanted)

    def forward(self, window: Tensor, *, auxiliary: bool | None = None, **inputs: Tensor) -> Output:
        """The Output of the current slice of a window.

        Args:
            window: (B, S, C, H, W), or one image (B, C, H, W).
            auxiliary: whether to compute the auxiliary outputs; None: in training mode only.
            inputs: where the network declares `feedback`, the masks (B, S, 1, H, W) of all slices,
                or (B, 1, H, W) of one image; with a prompt, the boxes (B, S, 4) or (B, 4).

        Raises:
            UsageError: a window or inputs of another shape.
        """
        slices = self._slices(window, inputs)
        current = self.current(len(slices))
        if self.is_bare:
            slices, current = [slices[current]], 0
        wanted = self._wanted(auxiliary)
        sequence: list[Maps] = []
        for index, (image, given) in enumerate(slices):
            if index == current:
                maps, carried = self._centre(image, given, wanted)
            else:
                maps = self._neighbour(image, given)
            self._check_maps(maps)
            sequence.append(maps)
        # Stacking would pass the current map on in another memory layout, and a convolution may
        # round differently there: `identity` promises the bare network bit for bit.
        fused = [
            sequence[current][place]
            if isinstance(module, Identity)
            else module(torch.stack([maps[place] for maps in sequence], 1))
            for place, module in enumerate(self._modules_list())
        ]
        image, given = slices[current]
        joined = self._joined(self._checked(fused, sequence[current]), sequence[current])
        return self._finish(carried, joined, given, _size(image), wanted)

    def sequences(self, window: Tensor, **inputs: Tensor) -> tuple[Tensor, ...]:
        """The sequences that the context modules read, for analyses: `context[i]` of entry i is the
        map that the module returns for this window.

        Args:
            window: (B, S, C, H, W), or one image (B, C, H, W).
            inputs: as in `forward`.

        Returns:
            One tensor (B, S, C, H, W) per place, S in reading order; at `skips` the places run from
            shallow to deep. With `tiles`, S is 1 and the map is not cut yet.

        Raises:
            UsageError: a window or inputs of another shape.
        """
        steps = [self._neighbour(image, given) for image, given in self._slices(window, inputs)]
        for maps in steps:
            self._check_maps(maps)
        return tuple(torch.stack(maps, 1) for maps in zip(*steps, strict=True))

    def released_names(self) -> ReleasedNames:
        """The authors' names of a whole model's tensors: `encoder.` for the network, `lstmlayer.`
        for the context module after it.

        Raises UsageError for a weaving at another position than `output`, or of parts without
        released names.
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
        stacked: dict[str, tuple[str, ...]] = {}
        for ours, (theirs, module) in parts.items():
            assert isinstance(module, HasReleasedNames)
            names = module.released_names()
            tensors |= {ours + name: theirs + other for name, other in names.tensors.items()}
            fixed |= {theirs + released for released in names.fixed}
            dead |= {theirs + released for released in names.dead}
            stacked |= {
                ours + name: tuple(theirs + other for other in several)
                for name, several in names.stacked.items()
            }
        return ReleasedNames(tensors, frozenset(fixed), frozenset(dead), stacked)

    def extra_repr(self) -> str:
        """Position, window and added parameters, for printing."""
        return (
            f"at={self.at!r}, slices={self.slices}, join={self.join!r}, "
            f"parameters_added={self.parameters_added}"
        )

    @abstractmethod
    def _centre(
        self, image: Tensor, inputs: Inputs, auxiliary: bool | None
    ) -> tuple[Maps, Carried]:
        """One slice → the maps that the context modules read, and what the network goes on with.

        `auxiliary` None: whether they are wanted is not known yet.
        """

    def _neighbour(self, image: Tensor, inputs: Inputs) -> Maps:
        """The maps of a slice that is not the current one, with as little work as possible."""
        return self._centre(image, inputs, False)[0]

    @abstractmethod
    def _finish(
        self, carried: Carried, maps: Maps, inputs: Inputs, size: Size, auxiliary: bool
    ) -> Output:
        """The rest of the network for the current slice, from the woven maps on."""

    def _run(self, network: nn.Module, image: Tensor, inputs: Inputs, auxiliary: bool) -> Output:
        """All of the network on one slice. `network` is `self.network` or a copy of it."""
        wanted: dict[str, Any] = {"auxiliary": auxiliary} if self._takes_auxiliary else {}
        output = as_output(network(image, **wanted, **inputs), network)
        return output if auxiliary else output._replace(auxiliary={})

    def _joined(self, fused: Sequence[Tensor], current: Maps) -> Maps:
        # A copy where there is no sum: the next layers may change the map in place, while the
        # module needs it for the gradient, or a prepared slice holds it.
        return tuple(
            before + new if self.join == "add" and not isinstance(module, Identity) else new.clone()
            for module, new, before in zip(self._modules_list(), fused, current, strict=True)
        )

    def _checked(self, fused: Sequence[Any], current: Maps) -> Maps:
        """What the modules returned, one map per place, each of the size of the current one."""
        return tuple(
            check_map(module, new, before.shape[2:])
            for module, new, before in zip(self._modules_list(), fused, current, strict=True)
        )

    def _modules_list(self) -> list[ContextModule]:
        return [cast(ContextModule, module) for module in self.context]

    def _wanted(self, auxiliary: bool | None) -> bool:
        return self.training if auxiliary is None else auxiliary

    def _slices(self, window: Tensor, inputs: Inputs) -> list[tuple[Tensor, Inputs]]:
        """Each slice of a window with its own mask."""
        self._check_inputs(inputs)
        if window.ndim == 4:
            return [(window, inputs)]
        if window.ndim != 5 or window.shape[1] == 0:
            raise UsageError(
                f"running a network woven at {self.at!r}",
                expected="a window (batch, slices, channels, height, width) or one image "
                "(batch, channels, height, width)",
                found=f"shape {tuple(window.shape)}",
            )
        for name, values in inputs.items():
            if values.ndim < 3 or values.shape[:2] != window.shape[:2]:
                one = (
                    "4"
                    if self.prompt is not None and name == self.prompt.name
                    else "1, height, width"
                )
                raise UsageError(
                    f"running a network woven at {self.at!r}",
                    expected=f"{name} of shape (batch, slices, {one}), one per slice of the window "
                    f"{tuple(window.shape)}",
                    found=f"shape {tuple(values.shape)}",
                )
        return [
            (image, {name: values[:, index] for name, values in inputs.items()})
            for index, image in enumerate(window.unbind(1))
        ]

    def _check_inputs(self, inputs: Mapping[str, Tensor]) -> None:
        check_names(f"running a network woven at {self.at!r}", self.network, inputs)

    def _check_maps(self, maps: Maps) -> None:
        expected = [module.channels for module in self._modules_list()]
        channels = [int(m.shape[1]) if m.ndim == 4 else -1 for m in maps]
        if channels != expected:
            raise UsageError(
                f"running a network woven at {self.at!r}",
                expected=f"maps (batch, channels, height, width) with {expected} channels",
                found="shapes " + ", ".join(str(tuple(m.shape)) for m in maps),
                remedy="correct the network's `channels`, or `channels=` of weave",
            )

    def _declared(self, name: str, value: int | None) -> int:
        if value is None:
            raise UsageError(
                f"asking a network woven at {self.at!r} for its {name}",
                expected=f"a network with the attribute {name!r}",
                found=type(self.network).__name__,
                remedy=f"set network.{name} before weaving"
                + (", or give classes= to weave" if name == "classes" else ""),
            )
        return value


def as_output(result: Any, network: nn.Module) -> Output:
    """What a network returned, as an Output: a tensor is the logits. Raises UsageError for
    anything else.
    """
    if isinstance(result, Output):
        return result
    if isinstance(result, Tensor):
        return Output(logits=result, auxiliary={})
    raise UsageError(
        f"reading what {type(network).__name__} returned",
        expected="logits (batch, classes, height, width) or a segweave Output",
        found=type(result).__name__,
        remedy="wrap the network in a module whose forward returns the logits",
    )


def _size(image: Tensor) -> Size:
    return int(image.shape[-2]), int(image.shape[-1])
