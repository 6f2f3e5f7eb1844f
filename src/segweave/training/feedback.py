"""The masks that a network with feedback reads: those of each sample's last visit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segweave.data.augmentations.plan import undo
from segweave.data.batches import Batch, Batches
from segweave.errors import UsageError
from segweave.networks.base import Feedback, Output, mask_of
from segweave.training.passes import nearest


class MaskMemory:
    """Keeps one mask per slice, on the slice's pixels before augmentation.

    A batch reads the masks of all slices of its windows, which are then augmented with the images,
    so that mask and image fit; what is predicted for the middle slices is brought back and kept.
    Pixels that an augmented image did not show keep their earlier value. A slice that was not
    visited yet has the mask `feedback.first` of its image.

    FANet (Tomar et al., released code) augments the image and leaves the stored mask as it is, so
    that the two do not fit, and replaces the stored masks only when the validation loss improves.
    The paper replaces them in each epoch, as here. Predictions come from the training pass, as in
    the released code; at several scales, from the last.

    Args:
        feedback: what the network declares.
        batches: the samples, whose slices get masks.
        exclusive: whether the classes exclude each other (see `mask_of`).

    Raises UsageError where samples are tiles, which show another region of a slice at each visit.
    """

    def __init__(self, feedback: Feedback, batches: Batches, *, exclusive: bool) -> None:
        if batches.tile is not None:
            raise UsageError(
                "training a network with feedback",
                expected="input.fit: stretch or pad",
                found="fit: tile",
                remedy="its masks are kept for whole images",
            )
        self.feedback = feedback
        self.size = batches.resized.size
        self._exclusive = exclusive
        self._rows = {key: row for row, key in enumerate(batches.samples)}
        pixels = self.size[0] * self.size[1]
        self._bits = np.zeros((len(self._rows), -(-pixels // 8)), np.uint8)
        self._visited = np.zeros(len(self._rows), np.bool_)
        self._middle: Tensor | None = None

    def read(self, keys: list[tuple[str, int]], windows: list[list[int]], image: Tensor) -> Tensor:
        """The masks of the slices of some windows; see `segweave.data.batches.Masks`."""
        masks = torch.empty((*image.shape[:2], *self.size), dtype=torch.uint8, device=image.device)
        for row, ((case, _), window) in enumerate(zip(keys, windows, strict=True)):
            for step, index in enumerate(window):
                masks[row, step] = self._mask((case, index), image[row : row + 1, step])
        self._middle = masks[:, masks.shape[1] // 2].clone()
        return masks

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The further inputs of the network for a batch."""
        assert batch.masks is not None
        return {self.feedback.name: batch.masks}

    def write(self, batch: Batch, output: Output) -> None:
        """Keep what was predicted for a batch that `read` gave masks to."""
        assert self._middle is not None
        predicted = mask_of(output, exclusive=self._exclusive).to(torch.uint8)
        shown, known = undo(nearest(predicted, self.size), batch.moves)
        kept = torch.where(known[:, 0], shown[:, 0], self._middle).cpu().numpy()
        for key, mask in zip(batch.keys, kept, strict=True):
            row = self._rows[key]
            self._bits[row] = np.packbits(mask)
            self._visited[row] = True

    def state(self) -> dict[str, Tensor]:
        """Everything that is kept, for a checkpoint."""
        return {
            "bits": torch.from_numpy(self._bits.copy()),
            "visited": torch.from_numpy(self._visited.copy()),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._bits[:] = state["bits"].numpy()
        self._visited[:] = state["visited"].numpy()

    def _mask(self, key: tuple[str, int], image: Tensor) -> Tensor:
        row = self._rows[key]
        if not self._visited[row]:
            with torch.no_grad():
                return self.feedback.first(image)[0, 0] > 0
        bits: NDArray[np.uint8] = np.unpackbits(self._bits[row], count=self.size[0] * self.size[1])
        return torch.from_numpy(bits.reshape(self.size)).to(image.device)
