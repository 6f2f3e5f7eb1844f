"""The contract of a network: encode → decode → head, with everything that later steps need carried
in plain tuples; and networks by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from segweave import registry
from segweave.errors import UsageError
from segweave.networks.pretrained import WeightsReport, head_tensors, load_pretrained
from segweave.registry import Size as Size
from segweave.registry import broken_rule, build


class Features(NamedTuple):
    """What `encode` returns.

    Attributes:
        skips: the maps that the decoder joins, from shallow to deep.
        bottleneck: the map between encoder and decoder, (B, C, h, w).
        extra: whatever `decode` needs besides, such as the image for a branch that only the centre
            slice runs. Weaving passes it on unchanged.
    """

    skips: tuple[Tensor, ...]
    bottleneck: Tensor
    extra: dict[str, Tensor]


class Decoded(NamedTuple):
    """What `decode` returns.

    Attributes:
        map: the map before the head, (B, C, h, w).
        extra: inner maps that `head` needs, for the logits or for auxiliary outputs.
    """

    map: Tensor
    extra: dict[str, Tensor]


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (B, classes, H, W), H and W being those of the image.
        auxiliary: named outputs for losses, empty in prediction: maps (B, C, H, W) of the size of
            the image, or vectors (B, C) that describe the whole image.
    """

    logits: Tensor
    auxiliary: dict[str, Tensor]


@dataclass(frozen=True)
class Feedback:
    """A network that reads its earlier mask declares this as `network.feedback`.

    The mask is a float map (B, 1, H, W) of 0 and 1; `encode` takes it under `name`. Training passes
    for each sample the mask that `mask_of` returned at its last visit, and `first(image)` before
    that. Prediction runs `rounds` passes over a case: the first pass reads `first(image)`, each
    further one the masks of the pass before. In a window each slice has a separate mask:
    (B, S, 1, H, W).

    Attributes:
        name: the keyword under which `encode` takes the mask.
        first: image (B, C, H, W), as the network gets it → first mask (B, 1, H, W).
        rounds: number of passes in prediction, at least 1.
    """

    name: str
    first: Callable[[Tensor], Tensor]
    rounds: int


@dataclass(frozen=True)
class Prompt:
    """A network that is shown what to segment declares this as `network.prompt`, and names its kind
    on its card.

    Of kind "box", `encode` takes under `name` one box for each image, a float tensor (B, 4) of x0,
    y0, x1, y1: the first and the last column and row of the object in pixels of the image as the
    network gets it, counted from 0. In a window each slice has a separate box: (B, S, 4).

    The user gives the boxes in prediction. In training and wherever scores are computed they are
    taken from the reference, and all that states these scores says so.

    Attributes:
        name: the keyword under which `encode` takes the prompt.
        kind: what is shown.
        jitter: in training, each side of a box is moved outwards by 0 to this part of the image's
            height or width.
    """

    name: str
    kind: Literal["box"] = "box"
    jitter: float = 0.0


class SegmentationNetwork(nn.Module, ABC):
    """A 2D segmentation network. A subclass sets `channels` and `stride` in its constructor.

    Work that only the centre slice of a window needs belongs in `decode`, from `features.extra`:
    neighbours are encoded, not decoded.

    Attributes:
        channels: for each position a tuple with one number of channels per map: `skips` from
            shallow to deep, `bottleneck`, `decoder` (the map before the head), `output` (the
            classes).
        stride: size of the image divided by the size of the bottleneck.
        in_channels: channels of an image.
        classes: channels of the logits.
        divisor: height and width of an image are multiples of it.
        smallest: height and width of an image are at least this.
        fixed: the only sizes that work, each a (height, width) or one number for a square; empty
            where every size works that `divisor` and `smallest` allow.
        feedback: the mask that `encode` takes besides the image, None for most networks.
        prompt: what the network is shown besides the image, None for most networks.
        backbones: dotted name of each submodule that has ImageNet weights → name of the timm model
            whose weights they are, or None where they exist as a file only.
        pretrained: what became of each tensor where start values were loaded.
    """

    channels: dict[str, tuple[int, ...]]
    stride: int
    in_channels: int
    classes: int
    divisor: int = 1
    smallest: int = 1
    fixed: tuple[Size | int, ...] = ()
    feedback: Feedback | None = None
    prompt: Prompt | None = None
    backbones: Mapping[str, str | None] = {}
    pretrained: WeightsReport | None = None

    def check_image(self, x: Tensor, **inputs: Tensor) -> None:
        """Check the arguments of `encode`, which calls this first.

        Raises UsageError where `x` is not (B, in_channels, H, W) of a size that works, and where
        `inputs` are not exactly what `feedback` and `prompt` declare: a mask (B, 1, H, W), boxes
        (B, 4).
        """
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UsageError(
                f"running {name} on an image",
                expected=f"shape (batch, {self.in_channels}, height, width)",
                found=f"shape {tuple(x.shape)}",
                remedy="create the network with as many in_channels as the image has",
            )
        check_size(
            name,
            (int(x.shape[-2]), int(x.shape[-1])),
            divisor=self.divisor,
            smallest=self.smallest,
            fixed=self.fixed,
        )
        self._check_inputs(x, inputs)

    def _check_inputs(self, x: Tensor, inputs: Mapping[str, Tensor]) -> None:
        doing = f"running {type(self).__name__} on an image"
        check_names(doing, self, inputs)
        shapes: dict[str, tuple[int, ...]] = {}
        if self.feedback is not None:
            shapes[self.feedback.name] = (int(x.shape[0]), 1, int(x.shape[-2]), int(x.shape[-1]))
        if self.prompt is not None:
            shapes[self.prompt.name] = (int(x.shape[0]), 4)
        for name, value in inputs.items():
            if tuple(value.shape) != shapes[name]:
                raise UsageError(
                    doing,
                    expected=f"{name} of shape {shapes[name]}",
                    found=f"shape {tuple(value.shape)}",
                )

    @abstractmethod
    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → features. `inputs` is what `feedback` and `prompt` declare.
        Raises UsageError for an image that `check_image` refuses.
        """

    @abstractmethod
    def decode(self, features: Features) -> Decoded:
        """Features → the map before the head."""

    @abstractmethod
    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits at `size` = (height, width) of the image, and, only if `auxiliary`,
        the auxiliary outputs.
        """

    def forward(self, x: Tensor, *, auxiliary: bool | None = None, **inputs: Tensor) -> Output:
        """(B, C, H, W) → Output, the three steps one after the other.

        Args:
            x: the image.
            auxiliary: whether to compute the auxiliary outputs; None: in training mode only.
            inputs: what `feedback` and `prompt` declare, nothing for most networks.
        """
        size = (int(x.shape[-2]), int(x.shape[-1]))
        wanted = self.training if auxiliary is None else auxiliary
        return self.head(self.decode(self.encode(x, **inputs)), size, wanted)


def first_inputs(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What `encode` takes besides an image (B, C, H, W) where nothing is known yet: the first mask
    of a network with `feedback`, the whole image as the box of one with a prompt; nothing for most.
    """
    inputs: dict[str, Tensor] = {}
    feedback: Feedback | None = getattr(network, "feedback", None)
    prompt: Prompt | None = getattr(network, "prompt", None)
    if feedback is not None:
        inputs[feedback.name] = feedback.first(image)
    if prompt is not None:
        height, width = image.shape[-2:]
        whole = image.new_tensor([0, 0, width - 1, height - 1])
        inputs[prompt.name] = whole.expand(image.shape[0], 4)
    return inputs


def check_names(doing: str, network: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Raise UsageError unless `inputs` are exactly those that the network's `feedback` and `prompt`
    declare.
    """
    feedback: Feedback | None = getattr(network, "feedback", None)
    prompt: Prompt | None = getattr(network, "prompt", None)
    remedies = {}
    if feedback is not None:
        remedies[feedback.name] = "pass the first mask, network.feedback.first(image)"
    if prompt is not None:
        remedies[prompt.name] = "pass a box for each image: x0, y0, x1, y1 in its pixels"
    if set(inputs) != set(remedies):
        missing = [remedy for name, remedy in remedies.items() if name not in inputs]
        raise UsageError(
            doing,
            expected=" and ".join(["the image", *(f"{name}=" for name in remedies)])
            if remedies
            else "the image alone",
            found=", ".join(f"{name}=" for name in inputs) or "the image alone",
            remedy="; ".join(missing) or None,
        )


def mask_of(output: Output, *, exclusive: bool) -> Tensor:
    """Output → the mask that `Feedback` takes next: 1 where any foreground class is predicted.

    Args:
        output: its logits are (B, classes, H, W).
        exclusive: whether channel 0 is the background and exactly one class holds at a pixel;
            otherwise each channel is one sigmoid, and foreground is a probability above a half.

    Returns:
        float (B, 1, H, W) of 0 and 1, without a gradient, of the type of the logits.
    """
    logits = output.logits.detach()
    if exclusive:
        foreground = logits.argmax(1, keepdim=True) > 0
    else:
        foreground = (logits > 0).any(1, keepdim=True)
    return foreground.to(logits.dtype)


def list_networks() -> list[str]:
    """Names of all networks, plug-ins included."""
    return list(registry.networks.cards())


def create_network(
    name: str,
    *,
    in_channels: int = 3,
    classes: int = 1,
    form: str = "released",
    pretrained: str | Path | None = None,
    new_head: bool = False,
    **options: Any,
) -> SegmentationNetwork:
    """A network by name.

    Args:
        name: one of `list_networks()`.
        in_channels: channels of an image.
        classes: channels of the logits.
        form: one of those that the card names; matters only where there are several. Where the card
            has no "released", which is the default here, it stands for the card's first form.
        pretrained: where start values come from: "imagenet" (the backbone's weights through timm,
            which downloads them if they are not in its cache), "imagenet:FILE" (a local file of the
            same weights), a file of weights of the whole network, or the folder of a run. What
            became of each tensor is in `network.pretrained`.
        new_head: let the tensors that depend on the number of classes keep their start values, for
            weights that were trained with other classes.
        options: those of the network's constructor.

    Raises:
        UsageError: an unknown name or option, with the nearest one that exists.
        InputError: weights of another network.
        MissingExtraError: a network that needs a library of an extra.

    Example:
        >>> from segweave import create_network
        >>> network = create_network("unet", in_channels=1, classes=4, width=8)
        >>> network.channels["bottleneck"]
        (128,)
    """
    card = registry.networks.card(name)
    entry = registry.networks.entry(name)
    doing = f"creating the network {name!r}"

    def build_with(classes: int) -> SegmentationNetwork:
        given: dict[str, Any] = {"in_channels": in_channels, "classes": classes, **options}
        if len(card.forms) > 1:
            missing = form == "released" and form not in card.forms
            given["form"] = card.forms[0] if missing else form
        network: SegmentationNetwork = build(doing, entry, card.options, given)
        return network

    def head() -> set[str]:
        # On the device "meta" a network has shapes and no numbers, and draws none.
        with torch.device("meta"):
            networks = [build_with(classes), build_with(classes + 1)]
        return head_tensors([{k: v.shape for k, v in n.state_dict().items()} for n in networks])

    network = build_with(classes)
    if pretrained is not None:
        network.pretrained = load_pretrained(
            network, pretrained, listed=card.weights, head=head, new_head=new_head
        )
    return network


def check_size(
    name: str,
    size: Size,
    *,
    divisor: int = 1,
    smallest: int = 1,
    fixed: Sequence[Size | int] = (),
) -> None:
    """Raise UsageError naming sizes that work where an image breaks a network's size rule.

    Args:
        name: the network, for the message.
        size: height and width of the image in pixels.
        divisor: see `broken_rule`.
        smallest: see `broken_rule`.
        fixed: see `broken_rule`.
    """
    broken = broken_rule(size, divisor=divisor, smallest=smallest, fixed=fixed)
    if broken is None:
        return
    expected, nearby = broken
    found = f"{size[0]}×{size[1]}"
    raise UsageError(
        f"running {name} on an image of {found}",
        expected=expected,
        found=found,
        remedy="resize or pad to " + " or ".join(f"{h}×{w}" for h, w in nearby),
    )
