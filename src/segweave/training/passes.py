"""Which batches, at which scales, make an optimiser step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import interpolate

from segweave.data.batches import Batch, Batches, Masks
from segweave.runtime.randomness import numpy_stream

Size = tuple[int, int]


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass.

    Attributes:
        epoch: from 0.
        number: of the batch within its epoch, from 0.
        scale: what height and width are multiplied by.
        last: whether it is the batch's last scale.
    """

    epoch: int
    number: int
    scale: float
    last: bool


class Passes:
    """The passes of a training as a function of the optimiser step, so that any step can be entered
    again.

    An epoch reads its batches in order, each at all scales one after the other (as PraNet trains:
    Fan et al., MICCAI 2020, released code, at 0.75, 1 and 1.25). A step takes `accumulate` passes;
    the last step of an epoch takes those that are left. With `one_scale_seed` each batch is read
    once, at one of the scales (as HarDNet-DFUS trains, Liao et al., arXiv:2209.07313).

    Args:
        batches: the batches of an epoch.
        accumulate: passes per step.
        scales: see `Pass`.
        one_scale_seed: the scale of a batch is drawn from (this seed, "augmentation", epoch, number
            of the batch); None reads each batch at all scales.
        divisor: sizes at other scales than 1 are rounded to multiples of it.
        smallest: and are at least this.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        accumulate: int = 1,
        scales: Sequence[float] = (1.0,),
        one_scale_seed: int | None = None,
        divisor: int = 1,
        smallest: int = 1,
    ) -> None:
        self.batches = batches
        self.accumulate = accumulate
        self.scales = tuple(scales)
        self._divisor, self._smallest = divisor, smallest
        self._one_scale_seed = one_scale_seed
        self._each = len(self.scales) if one_scale_seed is None else 1
        self._per_epoch = len(batches) * self._each
        self._keys: tuple[int, list[list[tuple[str, int]]]] | None = None
        self._batch: tuple[tuple[int, int], Batch] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return -(-self._per_epoch // self.accumulate)

    def of_step(self, step: int) -> list[Pass]:
        """The passes of optimiser step `step`, from 0."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within * self.accumulate
        return [
            Pass(
                epoch,
                index // self._each,
                self._scale(epoch, index),
                (index + 1) % self._each == 0,
            )
            for index in range(first, min(first + self.accumulate, self._per_epoch))
        ]

    def _scale(self, epoch: int, index: int) -> float:
        if self._one_scale_seed is None:
            return self.scales[index % self._each]
        stream = numpy_stream(
            self._one_scale_seed, "augmentation", epoch=epoch, slice_index=index, name="scale"
        )
        return self.scales[int(stream.integers(len(self.scales)))]

    def size_at(self, scale: float) -> Size:
        """Height and width of an image at a scale; at 1, those of the batches."""
        height, width = self.batches.resized.size
        if scale == 1:
            return height, width
        return self._rounded(height * scale), self._rounded(width * scale)

    def read(self, one: Pass, masks: Masks | None = None) -> Batch:
        """The batch of a pass at its scale; `masks` as in `Batches.batch`."""
        if self._keys is None or self._keys[0] != one.epoch:
            self._keys = (one.epoch, self.batches.keys(one.epoch))
        name = (one.epoch, one.number)
        if self._batch is None or self._batch[0] != name:
            keys = self._keys[1][one.number]
            batch = self.batches.batch(keys, one.epoch, masks)
            self._batch = (name, batch)
        batch = self._batch[1]
        if one.last:
            self._batch = None
        return resize_batch(batch, self.size_at(one.scale))

    def _rounded(self, length: float) -> int:
        lowest = -(-self._smallest // self._divisor) * self._divisor
        return max(round(length / self._divisor) * self._divisor, lowest, self._divisor)


def resize_batch(batch: Batch, size: Size) -> Batch:
    """A batch at another height and width: images by linear interpolation (half-pixel centres),
    labels and masks by nearest neighbour (a true image as the images).
    """
    if tuple(batch.image.shape[-2:]) == size:
        return batch
    image = interpolate(batch.image.flatten(1, 2), size, mode="bilinear", align_corners=False)
    return replace(
        batch,
        image=image.reshape(*batch.image.shape[:-2], *size),
        label=interpolate(batch.label, size, mode="bilinear", align_corners=False)
        if batch.label.is_floating_point()
        else nearest(batch.label, size),
        masks=None if batch.masks is None else nearest(batch.masks, size),
    )


def nearest(maps: Tensor, size: Size) -> Tensor:
    """Maps (B, ..., height, width) of any type at another size, by nearest neighbour."""
    planes = maps.reshape(len(maps), -1, *maps.shape[-2:]).float()
    resized: Tensor = interpolate(planes, size, mode="nearest-exact")
    return resized.to(maps.dtype).reshape(*maps.shape[:-2], *size)
