"""`weave`: puts a context module into a network at a position."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from segweave import registry
from segweave.context import create_context
from segweave.context.base import ContextModule, check_module
from segweave.context.identity import Identity
from segweave.errors import UsageError, nearest
from segweave.weaving.adapters import SegmentationModel
from segweave.weaving.slices import (
    WovenBottleneck,
    WovenDecoder,
    WovenEncoder,
    WovenOutput,
    WovenSkips,
)
from segweave.weaving.submodule import WovenSubmodule
from segweave.weaving.woven import WovenNetwork
from segweave.weaving.wrappers import Narrowed, Plain, Tiled

POSITIONS: Mapping[str, type[WovenNetwork]] = {
    "encoder": WovenEncoder,
    "bottleneck": WovenBottleneck,
    "skips": WovenSkips,
    "decoder": WovenDecoder,
    "output": WovenOutput,
}
"""The positions that have a name; any other position is the dotted name of a submodule."""

WIDEST = 64
"""With more channels than this, a module in form `paper` works on this many."""

_WITHOUT_PARAMETERS = ("identity", "mean")

Context = str | Callable[[int], nn.Module]


def weave(
    network: nn.Module,
    context: Context,
    at: str = "bottleneck",
    slices: int = 3,
    tiles: int = 1,
    join: str = "add",
    *,
    form: str = "paper",
    context_options: Mapping[str, Any] | None = None,
    channels: int | None = None,
    classes: int | None = None,
) -> WovenNetwork:
    """Put a context module into `network` (TIP paper, Section IV-B and Fig. 4).

    Args:
        network: a SegmentationNetwork, any module with `encode`, `decode`, `head` and `channels`
            (at `encoder` also `stride` and `in_channels`), or a `segmentation_models_pytorch`
            model; at `output` or a dotted name any module that returns logits. It is used as it is,
            not copied.
        context: a name, which means `create_context(name, C, form=form, both_sides=slices > 1,
            **context_options)`, or a function channels → module, called once per place. With more
            than 64 channels a name in form `paper` means a module of 64 channels and kernel 3 after
            one 1×1 convolution; the module's own last 1×1 convolution leads back. The module that a
            function returns is used as it is.
        at: `bottleneck`, `skips` (one module per skip), `encoder`, `decoder`, `output`, or the
            dotted name of a submodule.
        slices: length of the window, an odd number.
        tiles: cut the map of the one image into tiles × tiles; the sequence of a tile is the tiles
            before it in reading order and itself. More than 1 needs slices=1.
        join: "add" the module's map to the current one, or "replace" the current map by it (as the
            released models do). Does not apply at `encoder`.
        form: "paper" or "released".
        context_options: further options of the context module.
        channels: channels of the map at a dotted name or at `output`, where the network does not
            declare them.
        classes: channels of the logits, where the network does not declare them; at `output` the
            module may return another number than the network (the released models: 64 maps in, 4
            classes out).

    Returns:
        A module that takes a window (B, slices, C, H, W) and returns an Output with the logits
        (B, classes, H, W) of the middle slice.

    Raises:
        UsageError: a wrong position, a network that lacks what the position needs, options that
            exclude each other, or a module with wrong numbers of channels.

    Example:
        >>> import torch
        >>> from segweave import create_network, weave
        >>> network = create_network("unet", in_channels=1, classes=4, width=4)
        >>> woven = weave(network, "sa-lstm", at="bottleneck", slices=3)
        >>> tuple(woven(torch.zeros(2, 3, 1, 32, 32)).logits.shape)
        (2, 4, 32, 32)
    """
    _check_settings(slices, tiles, join)
    segmenter = adapted(network)
    if at in POSITIONS:
        network = segmenter
        kind = POSITIONS[at]
        _check_network(network, at)
    else:
        kind = WovenSubmodule
        _check_submodule(network, at)
    places = _places(segmenter, network, at, channels)
    network_classes = getattr(segmenter, "classes", None)
    if at == "output":
        network_classes = classes or network_classes or places[0]
        if join == "add" and network_classes != places[0]:
            raise UsageError(
                "weaving at 'output'",
                expected="as many classes as the network gives, since join='add' adds the two",
                found=f"{places[0]} channels of the network, {network_classes} classes",
                remedy="use join='replace'",
            )
    elif classes is not None and network_classes not in (None, classes):
        raise UsageError(
            f"weaving at {at!r}",
            expected=f"classes={network_classes}, as the network declares",
            found=f"classes={classes}",
            remedy="create the network with these classes, or weave at 'output'",
        )
    modules: list[ContextModule] = []
    for place in places:
        target = int(network_classes) if at == "output" and network_classes else place
        module = _module(
            context, place, target, slices, tiles, form, dict(context_options or {}), at
        )
        if any(module is other for other in modules):
            raise UsageError(
                f"weaving at {at!r}",
                expected="a new module for each place",
                found="the same module twice",
                remedy="let the function create a module at each call",
            )
        modules.append(module)
    return kind(
        network,
        modules,
        at=at,
        slices=slices,
        join=join,
        in_channels=getattr(segmenter, "in_channels", None),
        classes=modules[0].out_channels if at == "output" else (network_classes or classes),
    )


def adapted(network: nn.Module) -> nn.Module:
    """`network` itself, or, for a model built like those of `segmentation_models_pytorch`, its
    adapter. The library need not be installed.
    """
    if hasattr(network, "encode") and hasattr(network, "decode"):
        return network
    names = ("encoder", "decoder", "segmentation_head")
    if all(hasattr(network, name) for name in names) and hasattr(network.encoder, "out_channels"):
        return SegmentationModel(network)
    return network


def _check_settings(slices: int, tiles: int, join: str) -> None:
    if join not in ("replace", "add"):
        raise UsageError("weaving", expected="join='replace' or join='add'", found=f"join={join!r}")
    if slices < 1 or slices % 2 == 0:
        raise UsageError(
            "weaving",
            expected="an odd number of slices: the one to segment and as many on each side",
            found=f"slices={slices}",
        )
    if tiles < 1 or (tiles > 1 and slices > 1):
        raise UsageError(
            "weaving",
            expected="tiles of at least 1, and slices=1 where tiles is more",
            found=f"tiles={tiles}, slices={slices}",
            remedy="tiles are the sequence of a single image: add slices=1",
        )


def _check_network(network: nn.Module, at: str) -> None:
    needed = {"encoder": ("stride", "in_channels"), "output": ()}.get(at, ())
    if at != "output":
        needed = ("encode", "decode", "head", "channels", *needed)
    missing = [name for name in needed if not hasattr(network, name)]
    if missing:
        raise UsageError(
            f"weaving into {type(network).__name__} at {at!r}",
            expected="a network with " + ", ".join(needed),
            found="no " + ", no ".join(missing),
            remedy="add them (see segweave.networks.SegmentationNetwork), or weave at 'output' or "
            "at the dotted name of a submodule",
        )


def _check_submodule(network: nn.Module, at: str) -> None:
    names = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    if at not in names:
        # Only a network with encode, decode and head has the positions but `output`.
        whole = all(hasattr(network, name) for name in ("encode", "decode", "head"))
        positions = POSITIONS if whole else ("output",)
        raise UsageError(
            f"weaving into {type(network).__name__}",
            expected="a position (" + ", ".join(positions) + ") or the name of a submodule",
            found=repr(at),
            remedy=nearest(at, [*positions, *names[:500]]),
        )


def _places(
    segmenter: nn.Module, network: nn.Module, at: str, channels: int | None
) -> tuple[int, ...]:
    """Channels of the map at each place of a position."""
    if at in POSITIONS:
        declared = getattr(segmenter, "channels", None)
        if isinstance(declared, Mapping) and at != "output":
            key = "bottleneck" if at == "encoder" else at
            if key not in declared or not declared[key]:
                raise UsageError(
                    f"weaving into {type(segmenter).__name__} at {at!r}",
                    expected=f"network.channels[{key!r}] with one number per place",
                    found=", ".join(sorted(declared)) or "nothing",
                )
            if channels is not None and (channels,) != tuple(declared[key]):
                raise UsageError(
                    f"weaving into {type(segmenter).__name__} at {at!r}",
                    expected=f"no channels=, as the network declares {tuple(declared[key])}",
                    found=f"channels={channels}",
                )
            return tuple(declared[key])
        known = channels or (declared["output"][0] if isinstance(declared, Mapping) else None)
        known = known or getattr(segmenter, "classes", None)
    else:
        submodule = network.get_submodule(at)
        known = channels or _layer_channels(submodule)
    if known is None:
        raise UsageError(
            f"weaving into {type(network).__name__} at {at!r}",
            expected="a layer whose number of channels is known",
            remedy="give it with channels=",
        )
    return (int(known),)


def _layer_channels(submodule: nn.Module) -> int | None:
    """Channels of what a single layer (convolution, batch norm) returns, if declared."""
    for name in ("out_channels", "num_features"):
        value = getattr(submodule, name, None)
        if isinstance(value, int):
            return value
    return None


def _module(
    context: Context,
    channels: int,
    target: int,
    slices: int,
    tiles: int,
    form: str,
    options: dict[str, Any],
    at: str,
) -> ContextModule:
    """The context module of one place, with tiles and narrowing."""
    if isinstance(context, str):
        if context == "conv":
            options.setdefault("steps", slices if tiles == 1 else tiles**2)
        module = _named(context, channels, target, slices > 1, form, options)
    else:
        if options:
            raise UsageError(
                "weaving",
                expected="context_options with the name of a context module",
                found="a function, which chooses the options",
            )
        result = context(channels)
        module = (
            result
            if isinstance(result, ContextModule)
            else Plain(result, channels, target, both_sides=slices > 1)
        )
    check_module(f"weaving at {at!r}", module, channels, None)
    free = at in ("encoder", "output")
    if module.out_channels != target and not free:
        raise UsageError(
            f"weaving at {at!r}",
            expected=f"a context module from {channels} to {target} channels",
            found=f"{type(module).__name__} from {module.channels} to {module.out_channels}",
        )
    return module if tiles == 1 or isinstance(module, Identity) else Tiled(module, tiles)


def _named(
    name: str, channels: int, target: int, both_sides: bool, form: str, options: dict[str, Any]
) -> ContextModule:
    settings: dict[str, Any] = {"out_channels": target, "form": form, "both_sides": both_sides}
    if form != "paper" or channels <= WIDEST or name in _WITHOUT_PARAMETERS:
        return create_context(name, channels, **settings, **options)
    takes = inspect.signature(registry.contexts.entry(name)).parameters
    if "kernel_size" in takes:
        options = {"kernel_size": 3, **options}
    return Narrowed(channels, create_context(name, WIDEST, **settings, **options))
