"""Dice of whole batches in torch, on the device, for use during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segweave.errors import InputError


def batched_counts(prediction: Tensor, reference: Tensor, classes: int) -> Tensor:
    """Pixels that are (shared, predicted, present), shape (3, batch, classes), of two batches of
    class ids (batch, ...); ids outside 0..classes − 1 are nobody's.

    One pass over the batch, no copy of it for each class and no wait for the device. Raises
    InputError where shapes differ.
    """
    if prediction.shape != reference.shape or prediction.ndim < 2:
        raise InputError(
            "counting overlaps of a batch",
            expected="two batches of class ids of one shape, (batch, ...)",
            found=f"{tuple(prediction.shape)} and {tuple(reference.shape)}",
        )
    ours, theirs = prediction.flatten(1).long(), reference.flatten(1).long()
    # Class `classes` collects what belongs to none.
    ours = torch.where((ours < 0) | (ours >= classes), classes, ours)
    theirs = torch.where((theirs < 0) | (theirs >= classes), classes, theirs)
    shared = torch.where(ours == theirs, ours, classes)
    counts = torch.zeros((3, len(ours), classes + 1), dtype=torch.int64, device=ours.device)
    ones = torch.ones_like(ours)
    for row, ids in zip(counts, (shared, ours, theirs), strict=True):
        row.scatter_add_(1, ids, ones)
    return counts[:, :, :classes]


def batched_dice(prediction: Tensor, reference: Tensor, classes: int) -> Tensor:
    """Dice (batch, classes) of two batches of class ids; nan where a class is in neither."""
    shared, predicted, present = batched_counts(prediction, reference, classes)
    return 2 * shared / (predicted + present)


@dataclass
class RunningDice:
    """Dice over all pixels of many batches, one number a class, kept on the device until read.

    A quick look during training: unlike the protocols it joins all images into one.
    """

    classes: int
    counts: Tensor | None = None

    def add(self, prediction: Tensor, reference: Tensor) -> None:
        """Count one batch of class ids."""
        counts = batched_counts(prediction, reference, self.classes).sum(dim=1)
        self.counts = counts if self.counts is None else self.counts + counts

    def dice(self, only: Sequence[int] | None = None) -> dict[int, float]:
        """Class → Dice so far (nan where it was in nothing), for the classes of `only` or all."""
        if self.counts is None:
            return {}
        shared, predicted, present = self.counts.double().cpu()
        values = (2 * shared / (predicted + present)).tolist()
        return {c: values[c] for c in (range(self.classes) if only is None else only)}
