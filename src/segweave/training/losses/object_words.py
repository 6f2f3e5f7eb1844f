"""Cross-entropy of the words that describe the objects: how many there are, and how large."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError, nearest
from segweave.networks.base import Output
from segweave.registry import LossCard
from segweave.training.losses._targets import label_targets

CARD = LossCard(
    name="object-words",
    title="Cross-entropy of how many objects there are and how large they are",
    entry="ObjectWordsLoss",
    paper="Tomar et al., TGANet, MICCAI 2022, Section 2.1",
    reads="all",
)

_TOUCHING = np.ones((3, 3))  # corners too, as contours are found
_SIDES = 2


class ObjectWordsLoss(nn.Module):
    """Cross-entropy of `number` plus that of `size`, each the mean over the images with an object.

    The truth is computed from the label as the network sees it, after augmentation: an object is a
    connected region (8 neighbours) of any foreground class; several are two or more; the size is
    the share of the image that the bounding box of the largest region has. Images without an object
    do not count; neither do pixels with the target's ignored label. (The released code measures the
    region that its library lists last, and counts an empty mask as several.)

    Args:
        target: what the classes are.
        number: the auxiliary output (B, 2), logits of one and several objects.
        size: the auxiliary output (B, 3), logits of small, medium and large objects.
        limits: shares below which an object is small, and below which it is medium.
        released: take the softmax of the logits first and the cross-entropy of that, as the
            released code does, so that the loss stays above 0 for sure and right answers.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        number: str = "number",
        size: str = "size",
        limits: tuple[float, float] = (0.1, 0.3),
        released: bool = False,
    ) -> None:
        super().__init__()
        if len(limits) != _SIDES or not 0 < limits[0] < limits[1] < 1:
            raise UsageError(
                "creating the loss 'object-words'",
                expected="limits: two rising shares between 0 and 1",
                found=f"limits {tuple(limits)}",
            )
        self.target, self.number, self.size = target, number, size
        self.limits, self.released = tuple(limits), released

    def forward(self, output: Output, label: Tensor) -> Tensor:
        """The network's output and the label (B, H, W) → a number."""
        logits = []
        for name, count in ((self.number, 2), (self.size, 3)):
            given = output.auxiliary.get(name)
            if given is None or tuple(given.shape) != (len(label), count):
                found = f"no auxiliary output {name!r}"
                if given is not None:
                    found = f"{name} of shape {tuple(given.shape)}, not ({len(label)}, {count})"
                raise UsageError(
                    "computing the loss 'object-words'",
                    expected="a network that describes its objects, such as tganet",
                    found=found,
                    remedy=nearest(name, output.auxiliary) or "leave this loss out",
                )
            logits.append(given.softmax(dim=1) if self.released else given)
        words = self.words(label)
        there = [row for row, (number, _) in enumerate(words) if number >= 0]
        if not there:
            return sum((one.sum() * 0 for one in logits), output.logits.new_zeros(()))
        truth = torch.tensor([words[row] for row in there], device=label.device)
        total: Tensor = functional.cross_entropy(logits[0][there], truth[:, 0])
        return total + functional.cross_entropy(logits[1][there], truth[:, 1])

    def words(self, label: Tensor) -> list[tuple[int, int]]:
        """The classes of number and size of each image; (-1, -1) where there is no object."""
        truth, counted = label_targets(label, self.target, torch.float32)
        first = 1 if self.target.kind == "exclusive" else 0
        masks = ((truth * counted)[:, first:] > 0).any(dim=1).cpu().numpy()
        return [self._describe(mask) for mask in masks]

    def _describe(self, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[int, int]:
        regions, count = ndimage.label(mask, structure=_TOUCHING)
        if count == 0:
            return -1, -1
        largest = int(np.bincount(regions.ravel())[1:].argmax())
        rows, columns = ndimage.find_objects(regions)[largest]
        box = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = box / mask.size
        return min(count - 1, 1), sum(share >= limit for limit in self.limits)
