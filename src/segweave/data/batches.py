"""Batches of windows for training: the same for a seed whatever the workers, the batch layout or
where a run is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segweave.data.augmentations.base import Samples
from segweave.data.augmentations.plan import AugmentationPlan, Moves
from segweave.data.boxes import foreground
from segweave.data.cache import Resized
from segweave.data.inputs import window_indices
from segweave.data.specs import AugmentationChoice
from segweave.errors import InputError, UsageError
from segweave.runtime.randomness import numpy_stream

if TYPE_CHECKING:
    import torch

Cut = tuple[slice, slice]
_ALL: Cut = (slice(None), slice(None))

Masks = Callable[[list[tuple[str, int]], list[list[int]], "torch.Tensor"], "torch.Tensor"]
"""(keys, slice numbers of each window, images before augmentation) → a mask of every slice, uint8
(batch, slices, height, width): what a network with feedback reads."""


@dataclass(frozen=True)
class Batch:
    """The samples of one batch.

    Attributes:
        image: float32 (batch, slices, channels, height, width).
        label: int64 (batch, height, width) of the middle slice, or (batch, classes, height, width)
            where classes overlap; of an image, float32 (batch, channels, height, width).
        keys: (case, slice) of each sample.
        masks: float32 (batch, slices, 1, height, width), augmented as the image; None unless they
            were asked for, by a network with feedback or with a prompt.
        moves: what moved the pixels, for `segweave.data.augmentations.plan.undo`.
    """

    image: torch.Tensor
    label: torch.Tensor
    keys: list[tuple[str, int]]
    masks: torch.Tensor | None = None
    moves: Moves = field(default_factory=list)


class Batches:
    """Windows of resized cases in a random order, augmented a whole batch at a time.

    Samples are all slices of all cases. The order is drawn from (seed, "order", epoch), each
    sample's augmentation from (seed, "augmentation", epoch, case, slice), so that `epoch(e, k)`
    gives bit for bit what `epoch(e)` gives from its step `k` on. Slices and edge rule are the
    InputSpec's. Where it says `fit: tile`, a sample is one tile of its slice, at a position drawn
    from (seed, "crop", epoch, case, slice), and a slice that is smaller is padded. Batches are put
    together on the CPU, moved to `device` and augmented there.

    Args:
        resized: the cases on the network's grid.
        batch_size: samples per batch.
        seed: of order, crops and augmentation.
        augmentation: a recipe's `training.augmentation`; None for no augmentation.
        shuffle: False reads the samples in the order of cases and slices.
        keep_last: whether a last batch with fewer samples is kept.
        labelled_only: leave out slices without any class, which a network that is shown the object
            has nothing to learn from.
        device: where the batches are wanted.

    Raises InputError where the cases' sizes on the network's grid differ, UsageError for numbers
    or augmentations that make no batch.
    """

    def __init__(
        self,
        resized: Resized,
        *,
        batch_size: int,
        seed: int,
        augmentation: AugmentationChoice | None = None,
        shuffle: bool = True,
        keep_last: bool = True,
        labelled_only: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise UsageError(
                "making batches", expected="a batch size from 1", found=f"{batch_size}"
            )
        self.resized = resized
        self.batch_size = batch_size
        self.seed = seed
        self.plan = AugmentationPlan(() if augmentation is None else augmentation, resized.spec)
        self.shuffle = shuffle
        self.keep_last = keep_last
        self.device = device
        sizes = {resized[id].image.shape[-2:] for id in resized.ids}
        self.tile = resized.spec.size if resized.spec.fit == "tile" else None
        if len(sizes) > 1 and self.tile is None:
            raise InputError(
                "making batches",
                expected="cases of one size on the network's grid",
                found=", ".join(sorted(f"{h} × {w}" for h, w in sizes)),
                remedy="give the InputSpec a size (fit pad keeps the shape, tile the resolution)",
            )
        # Sorted, so that the order in which cases were named does not matter.
        self.samples = [
            (id, index) for id in sorted(resized.ids) for index in range(resized[id].image.shape[0])
        ]
        if labelled_only:
            ignored = resized.target.ignored
            self.samples = [
                (id, index)
                for id, index in self.samples
                if foreground(resized[id].label[index], ignored).any()
            ]
        if len(self) == 0:
            raise UsageError(
                "making batches",
                expected=f"at least {batch_size} slices where the last short batch is left out",
                found=f"{len(self.samples)}",
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.samples), self.batch_size)
        return full + (1 if rest and self.keep_last else 0)

    def order(self, epoch: int) -> list[tuple[str, int]]:
        """The samples (case, slice) of an epoch in the order in which they are read."""
        if not self.shuffle:
            return list(self.samples)
        numbers = numpy_stream(self.seed, "order", epoch=epoch).permutation(len(self.samples))
        return [self.samples[int(number)] for number in numbers]

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on (0: all of them)."""
        if not 0 <= start_step <= len(self):
            raise UsageError(
                "entering an epoch", expected=f"a step in 0..{len(self)}", found=f"{start_step}"
            )
        for keys in self.keys(epoch)[start_step:]:
            yield self.batch(keys, epoch)

    def keys(self, epoch: int) -> list[list[tuple[str, int]]]:
        """The samples of each batch of an epoch."""
        order = self.order(epoch)
        return [
            order[number * self.batch_size : (number + 1) * self.batch_size]
            for number in range(len(self))
        ]

    def batch(self, keys: list[tuple[str, int]], epoch: int, masks: Masks | None = None) -> Batch:
        """The batch of these samples (case, slice) as they come in an epoch. `masks` gives the
        masks that a network with feedback reads.
        """
        import torch

        spec = self.resized.spec
        first = self.resized[keys[0][0]]
        height, width = self.resized.size
        channels = first.image.shape[1]
        # A true image is changed as the slices are: it goes before them, so that the middle one
        # stays in the middle.
        true_images = int(self.resized.target.kind == "image")
        images = np.empty(
            (len(keys), true_images + spec.slices, channels, height, width), np.float32
        )
        axes = () if true_images else first.label.shape[1:-2]
        labels = np.zeros((len(keys), *axes, height, width), np.uint8)
        outside = np.empty((len(keys), channels), np.float32)
        windows = []
        for number, (id, index) in enumerate(keys):
            case = self.resized[id]
            window = window_indices(case.image.shape[0], index, spec.slices, spec.edge, case.gaps)
            windows.append(window)
            outside[number] = case.outside
            read, write = self._cut(id, index, epoch)
            if case.image[0, 0][read].size < height * width:
                images[number] = case.outside[:, None, None]
            slices = [case.label[index]] * true_images + [case.image[other] for other in window]
            for step, planes in enumerate(slices):
                images[number, step][(slice(None), *write)] = planes[:, *read]
            if not true_images:
                labels[number][(..., *write)] = case.label[index][(..., *read)]
        image = torch.from_numpy(images).to(self.device)
        label = torch.from_numpy(labels).to(self.device)
        maps = label.reshape(len(keys), -1, height, width)
        if masks is not None:
            maps = torch.cat([maps, masks(keys, windows, image).to(maps)], dim=1)
        samples = Samples(image, maps, torch.from_numpy(outside).to(image), spec)
        samples, moves = self.plan.apply(samples, self.seed, epoch, keys)
        count = samples.maps.shape[1] - (spec.slices if masks is not None else 0)
        return Batch(
            samples.image[:, true_images:],
            samples.image[:, 0]
            if true_images
            else samples.maps[:, :count].reshape(label.shape).long(),
            keys,
            None if masks is None else samples.maps[:, count:, None].float(),
            moves,
        )

    def _cut(self, id: str, index: int, epoch: int) -> tuple[Cut, Cut]:
        """Which rows and columns of a slice are read, and which of the sample they become."""
        if self.tile is None:
            return _ALL, _ALL
        stream = numpy_stream(self.seed, "crop", epoch=epoch, case=id, slice_index=index)
        read, write = [], []
        for size, wanted in zip(self.resized[id].image.shape[-2:], self.tile, strict=True):
            taken = min(size, wanted)
            start, at = int(stream.integers(size - taken + 1)), (wanted - taken) // 2
            read.append(slice(start, start + taken))
            write.append(slice(at, at + taken))
        return (read[0], read[1]), (write[0], write[1])
