"""Tries every network with and without a context module: it is built, trained for one step, and
predicts a volume.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from segweave import registry
from segweave.data.inputs import window_indices
from segweave.data.specs import TargetSpec
from segweave.errors import SegweaveError
from segweave.networks import create_network
from segweave.networks.base import Output, Size, first_inputs, mask_of
from segweave.recipes.recipe import LossTerm
from segweave.recipes.sections import Optimiser
from segweave.runtime.devices import flushed_denormals
from segweave.runtime.progress import Progress
from segweave.training.objective import WeightedLoss
from segweave.training.optimisers import make_optimiser
from segweave.weaving import WovenNetwork, weave
from segweave.weaving.costs import some_size
from segweave.weaving.factory import POSITIONS
from segweave.weaving.slices import volume_outputs

CONTEXTS = ("sa-lstm", "conv")
"""The modules that are tried: a module of the papers, and the control that it has to beat."""
SLICES = 3
_VOLUME = 4
_TARGET = TargetSpec(names=("background", "inside"))
_TERMS = (LossTerm(name="dice", weight=0.5), LossTerm(name="cross-entropy", weight=0.5))


@dataclass(frozen=True)
class Trial:
    """What came of one network with one context module at one position.

    Attributes:
        network: the network's name.
        context: the module's name; "" for the network alone.
        at: the position; "" for the network alone.
        size: height and width of the image; None where the network was not built.
        seconds: what the trial took.
        error: what failed; "" where nothing did.
    """

    network: str
    context: str
    at: str
    size: Size | None
    seconds: float
    error: str = ""

    @property
    def place(self) -> str:
        """The module and its position, `sa-lstm at skips`, or `alone`."""
        return f"{self.context} at {self.at}" if self.context else "alone"


def check_networks(
    names: Sequence[str] = (),
    *,
    contexts: Sequence[str] = CONTEXTS,
    positions: Sequence[str] = tuple(POSITIONS),
    progress: Progress | None = None,
) -> Iterator[Trial]:
    """Try networks one after the other, at the reduced size of their card's `tiny_options`: each
    alone, then with each context module at each position. What fails is reported in its Trial, and
    the next one is tried. Runs on the CPU and leaves torch's global generator as it was.

    Args:
        names: the networks; all that the registry has where it is empty.
        contexts: the context modules.
        positions: where they are woven in.
        progress: called before each trial.

    Raises UsageError for a name that does not exist.
    """
    chosen = list(names) or list(registry.networks.cards())
    for name in chosen:
        registry.networks.card(name)
    places = [("", ""), *((module, at) for module in contexts for at in positions)]
    for module in contexts:
        registry.contexts.card(module)
    total = len(chosen) * len(places)
    for number, name in enumerate(chosen):
        for index, (module, at) in enumerate(places):
            if progress is not None:
                where = f"{name}, {module} at {at}" if module else name
                progress(number * len(places) + index, total, where)
            yield _try(name, module, at)
    if progress is not None:
        progress(total, total, "")


def _try(name: str, context: str, at: str) -> Trial:
    started = time.perf_counter()
    size: Size | None = None
    error = ""
    with torch.random.fork_rng(devices=[]), flushed_denormals():
        torch.manual_seed(0)
        try:
            options = registry.networks.card(name).tiny_options
            network = create_network(name, in_channels=1, classes=_TARGET.classes, **options)
            size = some_size(network)
            woven = weave(network, context or "identity", at=at or "bottleneck", slices=SLICES)
            _train_one_step(woven, size)
            _predict(woven, size)
        except Exception as caught:  # whatever a network raises is its trial's result
            kind = "" if isinstance(caught, SegweaveError) else f"{type(caught).__name__}: "
            error = f"{kind}{caught}"
    return Trial(name, context, at, size, time.perf_counter() - started, error)


def _train_one_step(woven: WovenNetwork, size: Size) -> None:
    """One step of Adam on a batch of two windows, the auxiliary outputs included. Raises
    SegweaveError where loss, gradients or weights are not what training needs.
    """
    window = torch.rand(2, SLICES, woven.in_channels, *size)
    label = torch.zeros(2, *size, dtype=torch.int64)
    label[:, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = 1
    inputs = {
        name: value.reshape(2, SLICES, *value.shape[1:])
        for name, value in first_inputs(woven.network, window.flatten(0, 1)).items()
    }
    woven.train()
    optimiser, _ = make_optimiser(Optimiser(name="adam", rate=1e-3), woven)
    before = {name: p.detach().clone() for name, p in woven.named_parameters()}
    output: Output = woven(window, **inputs)
    loss = WeightedLoss(_TERMS, _TARGET)(output, label)
    for other in output.auxiliary.values():
        loss = loss + other.square().mean()
    _need(bool(torch.isfinite(loss)), "a finite loss", f"{float(loss.detach())}")
    loss.backward()
    gradients = {name: p.grad for name, p in woven.named_parameters() if p.grad is not None}
    bad = [name for name, grad in gradients.items() if not bool(torch.isfinite(grad).all())]
    _need(not bad, "finite gradients", f"another one of {', '.join(bad[:3])}")
    unused = [name for name in before if name.startswith("context.") and name not in gradients]
    _need(not unused, "gradients in the context module", f"none of {', '.join(unused[:3])}")
    optimiser.step()
    moved = sum(not torch.equal(p.detach(), before[name]) for name, p in woven.named_parameters())
    _need(moved > 0, "weights that move", "none")


def _predict(woven: WovenNetwork, size: Size) -> None:
    """A volume of four slices. Raises SegweaveError for logits that are not what they should be."""
    volume = torch.rand(_VOLUME, woven.in_channels, *size)
    woven.eval()
    shown = "" if woven.prompt is None else woven.prompt.name
    outputs = volume_outputs(
        woven,
        _VOLUME,
        lambda index: volume[index][None],
        lambda index: window_indices(_VOLUME, index, SLICES, "repeat"),
        get_prompt=lambda index: first_inputs(woven.network, volume[index][None])[shown],
        next_mask=lambda output: mask_of(output, exclusive=True),
    )
    logits = torch.cat([output.logits for output in outputs])
    _need(
        tuple(logits.shape) == (_VOLUME, _TARGET.classes, *size),
        f"logits of shape {(_VOLUME, _TARGET.classes, *size)}",
        f"{tuple(logits.shape)}",
    )
    _need(bool(torch.isfinite(logits).all()), "finite logits", "others")


def _need(holds: bool, expected: str, found: str) -> None:
    if not holds:
        raise SegweaveError("trying a network", expected=expected, found=found)


def failed_networks(trials: Sequence[Trial]) -> list[str]:
    """The names of the networks of which a trial failed, in order."""
    return list(dict.fromkeys(trial.network for trial in trials if trial.error))
