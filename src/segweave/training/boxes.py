"""The boxes that a network is shown in training: taken from the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segweave.data.batches import Batch, Batches
from segweave.data.boxes import foreground, mask_box
from segweave.errors import UsageError
from segweave.networks.base import Prompt
from segweave.runtime.randomness import numpy_stream


class ReferenceBoxes:
    """Shows a network the boxes around the reference, after augmentation, each side moved outwards
    at random (Ma et al., MedSAM, released code: by 0 to 20 of 1024 pixels).

    How far is drawn from (seed, "box", epoch, case, slice). Where augmentation has moved all of the
    object out of the image, and for a neighbour without any, the box is the whole image.

    Args:
        prompt: what the network declares.
        batches: the samples.
        seed: of the random moves.

    Raises UsageError where samples are tiles, which show a part of an object.
    """

    def __init__(self, prompt: Prompt, batches: Batches, *, seed: int) -> None:
        if batches.tile is not None:
            raise UsageError(
                "training a network that is shown boxes",
                expected="input.fit: stretch or pad",
                found="fit: tile",
                remedy="a tile shows a part of an object",
            )
        self.prompt = prompt
        self._seed = seed
        self._resized = batches.resized

    def read(self, keys: list[tuple[str, int]], windows: list[list[int]], image: Tensor) -> Tensor:
        """The reference's foreground in the slices of some windows; see
        `segweave.data.batches.Masks`.
        """
        ignored = self._resized.target.ignored
        masks = [
            np.stack([foreground(self._resized[id].label[i], ignored) for i in window])
            for (id, _), window in zip(keys, windows, strict=True)
        ]
        return torch.from_numpy(np.stack(masks)).to(image.device)

    def inputs(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """The further input of the network for a batch: boxes (batch, slices, 4)."""
        assert batch.masks is not None
        height, width = batch.masks.shape[-2:]
        masks = batch.masks[:, :, 0].cpu().numpy() > 0
        boxes = np.empty((*masks.shape[:2], 4), np.float32)
        whole = np.array([0, 0, width - 1, height - 1])
        outwards = self.prompt.jitter * np.array([-width, -height, width, height])
        for row, (case, index) in enumerate(batch.keys):
            stream = numpy_stream(self._seed, "box", epoch=epoch, case=case, slice_index=index)
            for step, mask in enumerate(masks[row]):
                box = mask_box(mask) + outwards * stream.random(4)
                boxes[row, step] = whole if np.isnan(box).any() else box
        boxes = np.clip(boxes, 0, [*whole[2:], *whole[2:]])
        return {self.prompt.name: torch.from_numpy(boxes).to(batch.image)}
