"""Runs the network once at each size of a training, so that what does not fit is reported before
the run's folder is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segweave.errors import UsageError
from segweave.networks import first_inputs
from segweave.training.passes import Passes
from segweave.weaving import WovenNetwork

_TOO_FEW = re.compile(r"Expected more than 1 (value|spatial element)")


def try_out(network: WovenNetwork, passes: Passes) -> None:
    """Run the network in evaluation mode, which changes nothing in it.

    Raises UsageError where a normalisation would see a single value per channel: of a batch of one
    sample (also where one is left over at the end of an epoch), or of any batch.
    """
    batches = passes.batches
    resized = batches.resized
    channels = resized[resized.ids[0]].image.shape[1]
    alone = 1 in (batches.batch_size, len(batches.samples) % batches.batch_size)
    network.eval()
    for scale in passes.scales:
        size = passes.size_at(scale)
        window = torch.zeros(1, resized.spec.slices, channels, *size)
        # All slices are zeros: what one is given fits the others.
        inputs = {
            name: value[:, None].expand(-1, window.shape[1], *value.shape[1:])
            for name, value in first_inputs(network.network, window[:, 0]).items()
        }
        try:
            with torch.no_grad(), _single_values(network) as single:
                network(window, **inputs)
        except ValueError as error:
            if not _TOO_FEW.search(str(error)):
                raise
            raise _too_small(size) from error
        network.train()
        names = [name for name, norm in single.items() if norm.training]
        network.eval()
        if alone and names:
            raise _batch_of_one(size, batches.batch_size, len(batches.samples), names[0])
    network.train()


@contextmanager
def _single_values(network: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Yield the batch norms that get one value per channel, by name, while the network runs."""
    single: dict[str, nn.Module] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):

            def note(norm: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
                maps: Tensor = given[0]
                if maps.numel() == maps.shape[1]:
                    single[name] = norm

            hooks.append(module.register_forward_pre_hook(note))
    try:
        yield single
    finally:
        for hook in hooks:
            hook.remove()


def _batch_of_one(size: tuple[int, int], batch_size: int, samples: int, name: str) -> UsageError:
    left = f"; {samples} slices in batches of {batch_size} leave one over" if batch_size > 1 else ""
    larger = next(n for n in range(max(batch_size, 2), samples + 3) if samples % n != 1)
    return UsageError(
        "training",
        expected="more than one value per channel in every batch norm",
        found=f"a batch of one slice at {size[0]} × {size[1]}, of which {name} gets a map of "
        f"1 × 1{left}",
        remedy=f"at least 2 slices in every batch (--set training.batch_size={larger}), or larger "
        f"images (--set input.size=[{2 * size[0]},{2 * size[1]}])",
    )


def _too_small(size: tuple[int, int]) -> UsageError:
    return UsageError(
        "training",
        expected="more than one position in every map that is normalised",
        found=f"images of {size[0]} × {size[1]}",
        remedy=f"larger images (--set input.size=[{2 * size[0]},{2 * size[1]}])",
    )
