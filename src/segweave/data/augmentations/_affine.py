"""What augmentations share that move all pixels of a sample by one matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segweave.data.augmentations.base import Numbers, PositionAugmentation, Samples, to_tensor

if TYPE_CHECKING:
    from torch import Tensor


class AffineAugmentation(PositionAugmentation):
    """`draw` returns a 2×3 matrix from output to input positions, both (x, y) in -1..1 between the
    image's outer edges.
    """

    @property
    def nearest(self) -> bool:
        """Whether images too are sampled by nearest neighbour."""
        return False

    def positions(self, numbers: Numbers, like: Tensor) -> Tensor:
        """See `PositionAugmentation.positions`."""
        from segweave.data.augmentations._sampling import affine_positions

        return affine_positions(to_tensor(numbers, like), (like.shape[-2], like.shape[-1]))

    def apply(self, samples: Samples, numbers: Numbers) -> Samples:
        """See `Augmentation.apply`; pixels that only change places are copied, not sampled."""
        from segweave.data.augmentations._sampling import sample_affine

        image, maps = sample_affine(
            samples.image,
            samples.maps,
            numbers,
            samples.outside,
            nearest=self.nearest,
            overwrite=True,
        )
        return samples._replace(image=image, maps=maps)
