"""Start values from elsewhere: a backbone's ImageNet weights, a file of the whole network, or one
of your runs. Each tensor is reported as loaded, missing or unused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from segweave.author_weights import HasReleasedNames, load_released
from segweave.errors import InputError, MissingExtraError, SegweaveError, UsageError
from segweave.storage import sha256_of
from segweave.weights import IMAGENET, compare_weights, is_imagenet, read_weights, weights_file

_COUNTER = ".num_batches_tracked"

Weights = Mapping[str, Tensor]


@runtime_checkable
class AdaptsWeights(Protocol):
    """A backbone whose tensors are cut otherwise than those of the same model in timm."""

    def adapted(self, weights: Weights) -> Weights:
        """Timm's tensors → tensors of this backbone's shapes, under the names that its
        `released_names` gives.
        """
        ...


@dataclass(frozen=True)
class WeightsReport:
    """What loading start values did with each tensor.

    Attributes:
        loaded: names of the network's tensors that were filled.
        missing: names of the network's tensors that keep their start values.
        unused: names of the source's tensors that the network has no use for.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_pretrained(
    network: nn.Module,
    pretrained: str | Path,
    *,
    listed: Sequence[Mapping[str, Any]] = (),
    head: Callable[[], Collection[str]] = tuple,
    new_head: bool = False,
) -> WeightsReport:
    """Fill `network` from what `pretrained` names. It is changed only if everything fits.

    Args:
        network: the network, with start values.
        pretrained: "imagenet" (the backbone's weights through timm, which may download them),
            "imagenet:FILE" (those of a local file; with several backbones
            "imagenet:BACKBONE=FILE,BACKBONE=FILE"), a file of the whole network (safetensors, or a
            torch file of tensors alone; our names or the authors'), or the folder of a run or of a
            model.
        listed: the card's `weights`; a file whose name and checksum it states is checked.
        head: called where it is needed; names of the tensors whose shape depends on the number of
            classes.
        new_head: whether these keep their start values.

    Raises:
        UsageError: the network has no backbone with ImageNet weights, or a wrong name.
        InputError: a file that can't be read, with other tensors, shapes or another checksum.
        MissingExtraError: "imagenet" without timm.
        SegweaveError: timm could not get the weights, for example without a network connection.
    """
    if is_imagenet(pretrained):
        return _load_backbones(network, str(pretrained).partition(":")[2], listed)
    return _load_whole(network, weights_file(pretrained), set(head()) if new_head else set(), head)


def _load_backbones(
    network: nn.Module, files: str, listed: Sequence[Mapping[str, Any]]
) -> WeightsReport:
    doing = f"loading ImageNet weights into {type(network).__name__}"
    # As `SegmentationNetwork` declares it; a plug-in's class may be another one.
    backbones: Mapping[str, str | None] = getattr(network, "backbones", {})
    if not backbones:
        raise UsageError(
            doing,
            expected="a network with a backbone that has ImageNet weights",
            found="none in this network",
            remedy="name a file of weights of the whole network, or take a network with a "
            "backbone, such as timm-unet",
        )
    chosen = _files_of_backbones(list(backbones), files, doing)
    plans: dict[str, dict[str, Tensor]] = {}
    unused: list[str] = []
    for backbone, model in backbones.items():
        if files:
            file: Path | None = Path(chosen[backbone])
            source = _from_file(Path(chosen[backbone]), listed, doing)
        elif model is None:
            raise UsageError(
                doing,
                expected=f"a file for {backbone}, whose weights timm does not have",
                found=f"{IMAGENET!r} alone",
                remedy=f"use pretrained='{IMAGENET}:FILE'",
            )
        else:
            file, source = None, _from_timm(model, doing)
        submodule = network.get_submodule(backbone)
        if isinstance(submodule, AdaptsWeights):
            source = submodule.adapted(source)
        plan = _matched(submodule, source, doing, file)
        plans[backbone] = {ours: tensor for ours, (_, tensor) in plan.items()}
        used = {theirs for theirs, _ in plan.values()}
        unused += [theirs for theirs in source if theirs not in used]
    loaded = []
    for backbone, tensors in plans.items():
        network.get_submodule(backbone).load_state_dict(tensors, strict=False)
        loaded += [f"{backbone}.{ours}" for ours in tensors]
    missing = [name for name in network.state_dict() if name not in set(loaded)]
    return WeightsReport(tuple(loaded), tuple(missing), tuple(unused))


def _files_of_backbones(names: Sequence[str], files: str, doing: str) -> dict[str, str]:
    """The file of each backbone, from "FILE" or "BACKBONE=FILE,BACKBONE=FILE"."""
    if not files:
        return {}
    if len(names) == 1:
        return {names[0]: files}
    chosen = dict(part.partition("=")[::2] for part in files.split(","))
    if set(chosen) != set(names) or not all(chosen.values()):
        raise UsageError(
            doing,
            expected=f"{IMAGENET}:" + ",".join(f"{name}=FILE" for name in names),
            found=f"{IMAGENET}:{files}",
        )
    return chosen


def _from_file(file: Path, listed: Sequence[Mapping[str, Any]], doing: str) -> Weights:
    weights = read_weights(file)
    for entry in listed:
        expected = entry.get("sha256")
        if expected is None or str(entry["source"]).rpartition("/")[2] != file.name:
            continue
        digest = sha256_of(file)
        if digest != expected:
            raise InputError(
                doing,
                file=file,
                expected=f"the file that the network's card lists (sha256 {expected[:12]}…)",
                found=f"another one (sha256 {digest[:12]}…)",
                remedy="copy or download it again; a file of yours needs another name",
            )
    return weights


def _from_timm(model: str, doing: str) -> Weights:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(doing, library="timm", extra="zoo") from error
    try:
        created: nn.Module = timm.create_model(model, pretrained=True)
    except Exception as error:
        # timm's sources raise errors of several libraries.
        raise SegweaveError(
            f"{doing}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            expected=f"the weights of {model!r} from timm's model hub or its local cache",
            found=type(error).__name__,
            remedy="connect to the network, or copy the file here and use "
            f"pretrained='{IMAGENET}:FILE'",
        ) from error
    return created.state_dict()


def _matched(
    backbone: nn.Module, source: Weights, doing: str, file: Path | None
) -> dict[str, tuple[str, Tensor]]:
    """Our name → (name in the source, tensor): by name, or else in order."""
    # Files of early versions have no counters of training steps, which no output depends on.
    counted = any(name.endswith(_COUNTER) for name in source)
    ours = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if counted or not name.endswith(_COUNTER)
    }
    theirs = {name.removeprefix("module."): (name, tensor) for name, tensor in source.items()}
    released = backbone.released_names().tensors if isinstance(backbone, HasReleasedNames) else {}
    if all(name in theirs for name in ours):
        plan = {name: theirs[name] for name in ours}
    elif released and all(released[name] in theirs for name in ours):
        plan = {name: theirs[released[name]] for name in ours}
    else:
        # A features-only backbone ends before the source does: its tensors are the first ones.
        plan = dict(zip(ours, theirs.values(), strict=False))
    fitted: dict[str, tuple[str, Tensor]] = {}
    first = True
    for name, (other, tensor) in plan.items():
        if first and tensor.ndim == 4 and tensor.shape != ours[name].shape:
            tensor = _with_channels(tensor, ours[name].shape)
        first = first and tensor.ndim != 4
        fitted[name] = (other, tensor)
    misfit = compare_weights(ours, {name: tensor for name, (_, tensor) in fitted.items()})
    if misfit:
        raise InputError(
            doing,
            file=file,
            expected=f"the {len(ours)} tensors of {type(backbone).__name__}, under its names or in "
            "its order",
            found=str(misfit),
            remedy="take the weights of the same backbone",
        )
    return fitted


def _with_channels(weight: Tensor, shape: torch.Size) -> Tensor:
    """A first convolution for three channels, adapted to another number of them as timm does."""
    if weight.shape[1] != 3 or (weight.shape[0], *weight.shape[2:]) != (shape[0], *shape[2:]):
        return weight
    from timm.models import adapt_input_conv

    return cast(Tensor, adapt_input_conv(shape[1], weight))


def _load_whole(
    network: nn.Module,
    file: Path,
    renewed: Collection[str],
    head: Callable[[], Collection[str]],
) -> WeightsReport:
    doing = f"loading weights into {type(network).__name__}"
    weights = read_weights(file)
    # A model folder holds a woven network: the network's tensors and those of the weaving.
    unused = [name for name in weights if not name.startswith("network.")]
    if len(unused) < len(weights):
        weights = {
            name.removeprefix("network."): tensor
            for name, tensor in weights.items()
            if name.startswith("network.")
        }
    else:
        unused = []
    state = network.state_dict()
    if isinstance(network, HasReleasedNames):
        # Some names may be the same in both.
        given = {name.removeprefix("module.") for name in weights}
        if len(given & network.released_names().all) > len(set(weights) & set(state)):
            return _load_released(network, weights, renewed)
    unused += [name for name in weights if name in renewed]
    kept = {name: tensor for name, tensor in weights.items() if name not in renewed}
    misfit = compare_weights({n: t for n, t in state.items() if n not in renewed}, kept)
    if misfit:
        raise InputError(
            doing,
            file=file,
            expected=f"weights of the same network, {len(state)} tensors",
            found=str(misfit),
            remedy=_way_to_load(network, file, misfit.names <= set(head()), kept),
        )
    network.load_state_dict(kept, strict=False)
    return WeightsReport(
        tuple(kept), tuple(name for name in state if name in renewed), tuple(unused)
    )


def _way_to_load(network: nn.Module, file: Path, only_head: bool, weights: Weights) -> str:
    """What to do about a file that is not of the whole network as it stands."""
    if only_head:
        return (
            "only the head differs, for another number of classes: start with a new one, "
            "new_head=True"
        )
    backbones: Mapping[str, str | None] = getattr(network, "backbones", {})
    if backbones and not any(name.startswith(f"{b}.") for b in backbones for name in weights):
        files = str(file) if len(backbones) == 1 else ",".join(f"{b}={file}" for b in backbones)
        return f"weights of a backbone alone are loaded by pretrained='{IMAGENET}:{files}'"
    return "take the network and the options that these weights were trained with"


def _load_released(network: nn.Module, weights: Weights, renewed: Collection[str]) -> WeightsReport:
    """A file under the authors' names."""
    assert isinstance(network, HasReleasedNames)
    names = network.released_names()
    state = network.state_dict()
    given = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    parts = {ours: (theirs,) for ours, theirs in names.tensors.items()} | dict(names.stacked)
    # A new head is loaded from its start values.
    own = names.parts(state)
    given |= {theirs: own[theirs] for name in renewed for theirs in parts.get(name, ())}
    matched = set(load_released(network, given).matched)
    loaded = [
        name for name, several in parts.items() if name not in renewed and matched >= {*several}
    ]
    used = {theirs for name in loaded for theirs in parts[name]}
    return WeightsReport(
        tuple(loaded),
        tuple(name for name in state if name in renewed),
        tuple(name for name in weights if name.removeprefix("module.") not in used),
    )


def head_tensors(shapes: Sequence[Mapping[str, torch.Size]]) -> set[str]:
    """Names of the tensors that differ between networks of different numbers of classes.

    Args:
        shapes: for each network the shape of each of its tensors.
    """
    return {
        name
        for first, second in pairwise(shapes)
        for name in set(first) | set(second)
        if first.get(name) != second.get(name)
    }
