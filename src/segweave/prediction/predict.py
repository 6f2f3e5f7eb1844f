"""From a case to its label map: every slice encoded once, decided on the case's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segweave.data.case import Case
from segweave.data.inputs import network_slice, normalise, to_case_grid
from segweave.data.specs import TargetSpec, decide
from segweave.data.windows import window_indices
from segweave.errors import UsageError
from segweave.networks.base import mask_of
from segweave.prediction.ensemble import Ensemble
from segweave.prediction.flips import Flips, mean_of_flips, with_flips
from segweave.prediction.folding import fold_batch_norms
from segweave.prediction.predictor import Predictor
from segweave.prediction.tiles import Tiles, tiled_probabilities
from segweave.runtime.denormals import flushed_denormals
from segweave.weaving import POSITIONS, WovenNetwork, volume_outputs, weave

SliceDone = Callable[[int, int], None]
"""Called after each slice with the number of slices done and of all."""
CaseMaps = Callable[[Case], Iterator[NDArray[np.float32]]]
"""A case → the probabilities (classes, height, width) of each slice on the case's own grid."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """`labels` uint8 (slices, height, width) on the case's grid, with a class axis after slices
    where classes overlap; `probabilities` float32 (slices, classes, height, width), or None.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    case: Case


def predict(
    predictor: Predictor | Ensemble, case: Case, *, probabilities: bool = False
) -> Prediction:
    """Segment a case slice by slice.

    Probabilities of a slice go to the case's own grid, then `decide` makes its labels; those of the
    whole case are held only if `probabilities` asks for them. The network is left in the mode it
    was in. Raises InputError for a case that does not fit the InputSpec.
    """
    with ready(predictor) as maps:
        return predict_with(maps, predictor.target, case, probabilities=probabilities)


def predict_cases(
    predictor: Predictor | Ensemble, cases: Iterable[Case], *, probabilities: bool = False
) -> Iterator[Prediction]:
    """`predict` of each case in turn, with the network made ready once."""
    with ready(predictor) as maps:
        for case in cases:
            yield predict_with(maps, predictor.target, case, probabilities=probabilities)


def network_probabilities(predictor: Predictor, case: Case) -> Iterator[NDArray[np.float32]]:
    """Probabilities of each slice on the network's own grid, float32 (classes, height, width).

    For protocols that decide there; everything else takes `predict`. Raises UsageError where the
    network reads tiles.
    """
    if predictor.input.fit == "tile":
        raise UsageError(
            "predicting on the network's own grid",
            expected="fit: stretch or pad",
            found="fit: tile, under which there is no one grid",
            remedy="score under the protocol clean",
        )
    with _ready_network(predictor) as network:
        yield from _on_network_grid(network, predictor, case)


@contextmanager
def ready(predictor: Predictor | Ensemble) -> Iterator[CaseMaps]:
    """Networks made ready once for many cases. Afterwards every part is in the mode it was in."""
    model = Ensemble((predictor,)) if isinstance(predictor, Predictor) else predictor
    with ExitStack() as stack:
        parts = [(stack.enter_context(_ready_network(one)), one) for one in model.members]

        def maps(case: Case) -> Iterator[NDArray[np.float32]]:
            every = [_on_case_grid(*part, case, model.flips, model.tiles) for part in parts]
            return every[0] if len(every) == 1 else _mean(every)

        yield maps


@contextmanager
def _ready_network(predictor: Predictor) -> Iterator[WovenNetwork]:
    """The predictor's network, ready to run: in eval mode and, on a CPU, a copy with batch norms
    folded and channels last in memory. Afterwards every part is in the mode it was in.
    """
    network = _woven(predictor)
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        if _place(network)[0].type == "cpu":
            # At a dotted name the weaving reads that submodule's own output.
            keep = () if network.at in POSITIONS else (f"network.{network.at}",)
            network = fold_batch_norms(network, keep=keep)
            network = network.to(memory_format=torch.channels_last)
        yield network
    finally:
        for module, mode in modes:
            module.training = mode


def predict_with(
    maps: CaseMaps,
    target: TargetSpec,
    case: Case,
    *,
    probabilities: bool = False,
    slice_done: SliceDone | None = None,
) -> Prediction:
    """`predict` with what `ready` gave."""
    labels: NDArray[np.uint8] | None = None
    kept: NDArray[np.float32] | None = None
    for index, own in enumerate(maps(case)):
        decided = decide(own, target)
        if labels is None:
            labels = np.zeros((case.slices, *decided.shape), np.uint8)
            if probabilities:
                kept = np.zeros((case.slices, *own.shape), np.float32)
        labels[index] = decided
        if kept is not None:
            kept[index] = own
        if slice_done is not None:
            slice_done(index + 1, case.slices)
    assert labels is not None, "a case has at least one slice"
    return Prediction(labels, kept, case)


def _mean(every: Sequence[Iterator[NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
    for maps in zip(*every, strict=True):
        total = maps[0].copy()
        for one in maps[1:]:
            total += one
        yield total / np.float32(len(maps))


def _on_case_grid(
    network: WovenNetwork, predictor: Predictor, case: Case, flips: Flips, tiles: Tiles | None
) -> Iterator[NDArray[np.float32]]:
    spec = predictor.input
    if tiles is None and spec.fit != "tile":
        for maps in _on_network_grid(network, predictor, case, flips):
            yield to_case_grid(maps, case.size, spec)
        return

    def run(
        count: int,
        get_slice: Callable[[int], NDArray[np.float32]],
        window: Callable[[int], Sequence[int]],
    ) -> Iterator[NDArray[np.float32]]:
        return _run_slices(network, predictor, count, get_slice, window, flips)

    yield from tiled_probabilities(case, spec, tiles or Tiles(), run)


def _on_network_grid(
    network: WovenNetwork, predictor: Predictor, case: Case, flips: Flips = "none"
) -> Iterator[NDArray[np.float32]]:
    spec = predictor.input
    numbers = normalise(case, spec)

    def get_slice(index: int) -> NDArray[np.float32]:
        return network_slice(case, index, spec, numbers)

    def window(index: int) -> list[int]:
        return window_indices(case.slices, index, spec.slices, spec.edge, case.gaps)

    return _run_slices(network, predictor, case.slices, get_slice, window, flips)


def _run_slices(
    network: WovenNetwork,
    predictor: Predictor,
    count: int,
    get_slice: Callable[[int], NDArray[np.float32]],
    window: Callable[[int], Sequence[int]],
    flips: Flips,
) -> Iterator[NDArray[np.float32]]:
    """Probabilities (classes, height, width) of `count` slices (channels, height, width) in turn,
    each encoded once, mirror images as a batch beside it.
    """
    device, dtype = _place(network)
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format

    def get_views(index: int) -> Tensor:
        image = with_flips(torch.from_numpy(get_slice(index))[None], flips)
        return image.to(device=device, dtype=dtype, memory_format=layout)

    outputs = volume_outputs(
        network,
        count,
        get_views,
        window,
        next_mask=partial(mask_of, exclusive=predictor.target.kind == "exclusive"),
    )
    for _ in range(count):
        # Inside the loop, so that whoever takes the maps does not run in these modes too.
        with (
            torch.inference_mode(),
            flushed_denormals(),
            torch.autocast(device.type, torch.bfloat16, enabled=predictor.precision == "bf16"),
        ):
            views = next(outputs).logits.float()
            maps = mean_of_flips(
                [_probabilities(logits, predictor.target) for logits in views], flips
            )
            found: NDArray[np.float32] = maps.contiguous().cpu().numpy()
        yield found


def _probabilities(logits: Tensor, target: TargetSpec) -> Tensor:
    _check_classes(logits, target)
    return logits.softmax(0) if target.kind == "exclusive" else logits.sigmoid()


def _check_classes(logits: Tensor, target: TargetSpec) -> None:
    if logits.shape[0] != target.classes:
        raise UsageError(
            "predicting",
            expected=f"logits of {target.classes} channels ({target.kind}: "
            f"{', '.join(target.names)})",
            found=f"{logits.shape[0]} channels",
            remedy="create the network with these classes",
        )


def _woven(predictor: Predictor) -> WovenNetwork:
    network = predictor.network
    if isinstance(network, WovenNetwork):
        return network
    classes = predictor.target.classes
    return weave(
        network, "identity", at="output", slices=predictor.input.slices, classes=classes,
        channels=classes,
    )  # fmt: skip


def _place(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the network's parameters lie and of which type they are (a CPU's float32 if none)."""
    parameter: Any = next(network.parameters(), None)
    if parameter is None:
        return torch.device("cpu"), torch.float32
    return parameter.device, parameter.dtype
