"""The augmentations of a recipe, drawn and applied to a batch one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from segweave import registry
from segweave.data.augmentations.base import (
    Augmentation,
    Numbers,
    PositionAugmentation,
    Samples,
    WindowShape,
)
from segweave.data.augmentations.geometry import Geometry
from segweave.data.specs import (
    AugmentationChoice,
    AugmentationTerm,
    GeometryOptions,
    InputSpec,
)
from segweave.errors import SegweaveError, UsageError, from_validation
from segweave.registry import build
from segweave.runtime.randomness import numpy_stream

if TYPE_CHECKING:
    from torch import Tensor

Key = tuple[str, int]
"""(case, slice) of a sample."""


Moves = list[tuple[PositionAugmentation, list[int], Numbers]]
"""What moved the pixels of a batch: the augmentation, the rows that it changed, its numbers."""


class AugmentationPlan:
    """Applies the augmentations of a recipe in their order.

    Raises UsageError for a name or an option that does not exist, for a name that is given twice
    (the draws depend on the name alone), and for images that an augmentation cannot take.

    Args:
        choice: the recipe's `training.augmentation`.
        spec: how the images are normalised.
    """

    def __init__(self, choice: AugmentationChoice, spec: InputSpec) -> None:
        self.spec = spec
        self._steps: list[tuple[str, float, Augmentation]] = []
        if isinstance(choice, GeometryOptions):
            geometry = Geometry.model_validate(choice.model_dump())
            given: Sequence[tuple[str, float, Augmentation]] = [("geometry", 1.0, geometry)]
        else:
            given = [(term.name, term.probability, create(term)) for term in choice]
        for name, probability, augmentation in given:
            if name in [other for other, _, _ in self._steps]:
                raise UsageError(
                    "choosing augmentations", expected="each name once", found=f"{name} twice"
                )
            augmentation.check(spec)
            self._steps.append((name, probability, augmentation))
        self._steps = [
            step for step in self._steps if step[2].active and (step[1] > 0 or step[2].own_odds)
        ]

    def __bool__(self) -> bool:
        return bool(self._steps)

    def apply(
        self, samples: Samples, seed: int, epoch: int, keys: Sequence[Key]
    ) -> tuple[Samples, Moves]:
        """The augmented samples, and what moved their pixels.

        Args:
            samples: the batch; its tensors may be overwritten.
            seed: the recipe's.
            epoch: from 0.
            keys: (case, slice) of each sample.
        """
        moves: Moves = []
        window = WindowShape(*samples.image.shape[1:])
        for name, probability, augmentation in self._steps:
            rows: list[int] = []
            drawn: list[Numbers] = []
            for row, (case, index) in enumerate(keys):
                stream = numpy_stream(
                    seed,
                    "augmentation",
                    epoch=epoch,
                    case=case,
                    slice_index=index,
                    # Nothing for the first augmentation that there was, so that old recipes draw
                    # what they drew.
                    name="" if name == "geometry" else name,
                )
                if augmentation.own_odds or stream.random() < probability:
                    rows.append(row)
                    drawn.append(augmentation.draw(stream, window))
            if rows:
                numbers = np.stack(drawn)
                samples = _apply(augmentation, samples, rows, numbers)
                if isinstance(augmentation, PositionAugmentation):
                    moves.append((augmentation, rows, numbers))
        return samples, moves


def create(term: AugmentationTerm) -> Augmentation:
    """The augmentation that a recipe names.

    Raises UsageError for a name or an option that does not exist, and UsageError or InputError for
    options that are out of range.
    """
    card = registry.augmentations.card(term.name)
    entry = registry.augmentations.entry(term.name)
    doing = f"creating the augmentation {term.name!r}"
    given = dict(term.options)
    if entry.own_odds:
        if "probability" in given:
            raise UsageError(
                doing, expected="probability beside name", found="probability in options"
            )
        if term.probability != 1:
            given["probability"] = term.probability
    try:
        augmentation: Augmentation = build(doing, entry, card.options, given)
    except ValidationError as error:
        raise from_validation(error, doing, model=entry, section="options") from error
    except SegweaveError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{doing}: {error}") from error
    return augmentation


def undo(maps: Tensor, moves: Moves) -> tuple[Tensor, Tensor]:
    """Bring maps of augmented samples back to the pixels before augmentation.

    Args:
        maps: uint8 (B, K, height, width).
        moves: what `AugmentationPlan.apply` returned.

    Returns:
        The maps, and where they are known: bool (B, 1, height, width), False at pixels that the
        augmented image does not show.
    """
    import torch

    from segweave.data.augmentations._sampling import inverse_positions, read_maps

    both = torch.cat([maps, torch.ones_like(maps[:, :1])], dim=1)
    for augmentation, rows, numbers in reversed(moves):
        like = torch.empty(maps.shape, dtype=torch.float32, device=maps.device)
        grid = inverse_positions(augmentation.positions(numbers, like))
        both[rows] = read_maps(both[rows], grid, torch.float32)
    return both[:, :-1], both[:, -1:] > 0


def _apply(
    augmentation: Augmentation, samples: Samples, rows: list[int], numbers: Numbers
) -> Samples:
    if len(rows) == len(samples.image):
        return augmentation.apply(samples, numbers)
    changed = augmentation.apply(
        samples._replace(
            image=samples.image[rows], maps=samples.maps[rows], outside=samples.outside[rows]
        ),
        numbers,
    )
    samples.image[rows] = changed.image
    if isinstance(augmentation, PositionAugmentation):
        samples.maps[rows] = changed.maps
    return samples
