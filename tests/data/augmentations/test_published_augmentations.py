"""Flip, shear, coarse dropout and sharpness, which published recipes need, each against an
independent formula.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from segweave.data.augmentations.base import Samples, WindowShape
from segweave.data.augmentations.coarse_dropout import CoarseDropout
from segweave.data.augmentations.flip import Flip
from segweave.data.augmentations.sharpness import Sharpness
from segweave.data.augmentations.shear import Shear
from segweave.data.specs import InputSpec

RGB = InputSpec(channels=("red", "green", "blue"), colour_order="rgb", normalisation="fixed",
                mean=(0, 0, 0), sd=(255, 255, 255), slices=3)  # fmt: skip


def samples_of(height: int = 12, width: int = 16) -> Samples:
    """One RGB window of 8-bit values divided by 255, and a label."""
    chance = np.random.default_rng(0)
    values = chance.integers(0, 256, (1, 3, 3, height, width))
    values[0, 1, :, 3, 4] = 255
    image = torch.from_numpy(values.astype(np.float32) / 255)
    label = torch.from_numpy(chance.integers(0, 4, (1, 1, height, width)).astype(np.uint8))
    return Samples(image, label, torch.zeros(1, 3), RGB)


def drawn(augmentation: Flip | Shear | CoarseDropout, seed: int = 0) -> np.ndarray:
    return augmentation.draw(np.random.default_rng(seed), WindowShape(3, 3, 12, 16))


def test_flips_come_as_often_as_asked_and_are_exact() -> None:
    flip, counts = Flip(rows=0.25, columns=0.6), np.zeros(2)
    for seed in range(400):
        samples, before = samples_of(), samples_of()
        matrix = drawn(flip, seed)
        axes = [-1 - axis for axis in (0, 1) if matrix[axis, axis] < 0]
        counts += [matrix[0, 0] < 0, matrix[1, 1] < 0]
        if seed < 8:
            after = flip.apply(samples, matrix[None])
            assert torch.equal(after.image, before.image.flip(axes))
            assert torch.equal(after.maps, before.maps.flip(axes))
    assert counts / 400 == pytest.approx([0.25, 0.6], abs=0.08)


def test_shear_reads_where_the_tangents_say() -> None:
    shear = Shear(rows=30, columns=20)
    matrix = drawn(shear, 3)
    a, b = matrix[0, 1] * 16 / 12, matrix[1, 0] * 12 / 16
    assert abs(a) <= np.tan(np.radians(30))
    assert abs(b) <= np.tan(np.radians(20))
    assert min(abs(a), abs(b)) > 0.01
    grid = shear.positions(matrix[None], torch.empty(1, 1, 12, 16))[0].numpy()
    y, x = (np.mgrid[:12, :16] + 0.5).astype(float)
    x, y = x - 8, y - 6
    np.testing.assert_allclose(grid[..., 0] * 8, x + a * y, atol=1e-5)
    np.testing.assert_allclose(grid[..., 1] * 6, y + b * x, atol=1e-5)


def test_coarse_dropout_blackens_whole_squares_inside_the_image() -> None:
    dropout = CoarseDropout(holes=1, size=0.25)
    for seed in range(20):
        samples = samples_of()
        samples = samples._replace(image=samples.image + 1, outside=torch.full((1, 3), -2.0))
        numbers = torch.from_numpy(drawn(dropout, seed)).float()[None]
        after = dropout.change(samples, numbers)
        hole = (after == -2).all(dim=2)[0]
        assert (hole[0] == hole[1]).all()
        assert (after.movedim(2, -1)[0][~hole] == samples.image.movedim(2, -1)[0][~hole]).all()
        rows, columns = np.nonzero(hole[0].numpy())
        assert (np.ptp(rows), np.ptp(columns), len(rows)) == (2, 3, 12)  # 3 × 4 pixels
    assert drawn(CoarseDropout(holes=10)).shape == (10, 2)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.1, 3.0])
def test_sharpness_is_pillow_s(factor: float) -> None:
    samples = samples_of()
    ours = Sharpness().change(samples, torch.tensor([factor]))[0, 1]
    picture = (samples.image[0, 1] * 255).round().byte().permute(1, 2, 0).numpy()
    expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(picture)).enhance(factor))
    # Pillow rounds twice.
    difference = np.abs(ours.permute(1, 2, 0).numpy() * 255 - expected)
    assert difference.max() <= 1.01 + 0.5 * factor
