from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from torch.nn.functional import affine_grid, grid_sample

from segweave.data.augmentations._sampling import sample_affine
from segweave.data.augmentations.base import WindowShape
from segweave.data.augmentations.geometry import Geometry
from segweave.data.augmentations.geometry import _quarter_turns as quarter_turns
from segweave.data.augmentations.geometry import _turn as turn
from segweave.runtime.randomness import numpy_stream

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def draw(
    plan: Geometry, seed: int, epoch: int, case: str, index: int, size: tuple[int, int]
) -> np.ndarray[Any, Any]:
    """The matrix of one sample, from the stream that training takes."""
    stream = numpy_stream(seed, "augmentation", epoch=epoch, case=case, slice_index=index)
    return plan.draw(stream, WindowShape(1, 1, *size))


def draw_batch(
    plan: Geometry, seed: int, epoch: int, keys: list[tuple[str, int]], size: tuple[int, int]
) -> np.ndarray[Any, Any]:
    return np.stack([draw(plan, seed, epoch, case, index, size) for case, index in keys])


def _apply(
    image: np.ndarray[Any, Any], matrix: np.ndarray[Any, Any], *, nearest: bool = True
) -> np.ndarray[Any, Any]:
    """One picture (h, w) sampled at a 2×2 or 2×3 matrix."""
    full = np.zeros((1, 2, 3))
    full[0, :, : matrix.shape[1]] = matrix
    planes = torch.from_numpy(image.astype(np.float32))[None, None, None]
    label = torch.zeros(1, *image.shape, dtype=torch.uint8)
    moved = sample_affine(planes, label, full, torch.zeros(1, 1), nearest=nearest)[0]
    return moved[0, 0, 0].numpy()


def _picture(size: tuple[int, int] = (9, 9)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(size).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 9)])
def test_quarter_turns_are_those_of_numpy(count: int, size: tuple[int, int]) -> None:
    picture = _picture(size)
    np.testing.assert_array_equal(_apply(picture, quarter_turns(count)), np.rot90(picture, count))


@pytest.mark.parametrize("degrees", [-20, -7, 5, 19])
@pytest.mark.parametrize("size", [(40, 40), (36, 52)])
def test_turns_are_those_of_scipy(degrees: int, size: tuple[int, int]) -> None:
    picture = ndimage.gaussian_filter(_picture(size), 2)
    ours = _apply(picture, turn(np.radians(degrees), size))
    theirs = ndimage.rotate(picture, degrees, reshape=False, order=0)
    # SciPy calls the outer half of a border pixel outside already.
    inside = theirs != 0
    assert (ours == theirs)[inside].mean() > 0.995
    assert inside.mean() > (ours != 0).mean() - 0.05


def test_identity_is_exact() -> None:
    picture = _picture((16, 12))
    np.testing.assert_array_equal(_apply(picture, IDENTITY), picture)
    np.testing.assert_array_equal(_apply(picture, IDENTITY, nearest=False), picture)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("size", [(12, 12), (10, 14)])
def test_as_torch_samples_it(nearest: bool, size: tuple[int, int]) -> None:
    plan = Geometry(rotation=30, scale=0.2, shift=0.1, mirror="both", rot90=True)
    matrices = np.stack([draw(plan, 0, 0, "a", k, size) for k in range(6)])
    # Pixels that only change places go another way than the rest of the batch.
    matrices[1, :, :2], matrices[3, :, :2], matrices[4] = -np.eye(2), [[0, 1], [-1, 0]], IDENTITY
    matrices[[1, 3], :, 2] = 0
    chance = torch.Generator().manual_seed(0)
    image = torch.randn(6, 3, 2, *size, generator=chance)
    label = torch.randint(0, 4, (6, *size), generator=chance, dtype=torch.uint8)
    outside = torch.randn(6, 2, generator=chance)
    moved, moved_label = sample_affine(image, label, matrices, outside, nearest=nearest)
    fill = outside[:, None, :, None, None]
    grid = affine_grid(torch.from_numpy(matrices), [6, 1, *size], align_corners=False)
    for slice_ in range(3):
        expected = grid_sample(
            (image - fill)[:, slice_].double(),
            grid,
            mode="nearest" if nearest else "bilinear",
            align_corners=False,
        )
        found = moved[:, slice_] - fill[:, 0]
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)
    expected = grid_sample(label[:, None].double(), grid, mode="nearest", align_corners=False)
    assert torch.equal(moved_label, expected[:, 0].to(torch.uint8))


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
@pytest.mark.parametrize("mirror", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_pixels_that_change_places_alone_keep_their_values(
    quarter: int, mirror: tuple[int, int]
) -> None:
    picture = _picture((11, 11))
    moved = _apply(picture, quarter_turns(quarter) @ np.diag(mirror).astype(float), nearest=False)
    axes = [axis for axis, sign in ((1, mirror[0]), (0, mirror[1])) if sign < 0]
    np.testing.assert_array_equal(moved, np.flip(np.rot90(picture, quarter), axes))


def test_released_odds() -> None:
    plan = Geometry(odds="released")
    picture = _picture((12, 12))
    reflections = {
        np.flip(np.rot90(picture, k), axis).tobytes(): (k, axis)
        for k in range(4)
        for axis in (0, 1)
    }
    assert len(reflections) == 4
    found: Counter[str] = Counter()
    angles = []
    for number in range(2000):
        matrix = draw(plan, 0, 0, "a", number, (12, 12))
        moved = _apply(picture, matrix)
        if moved.tobytes() in reflections:
            found[str(reflections[moved.tobytes()])] += 1
        elif (matrix == IDENTITY).all():
            found["none"] += 1
        else:
            found["turned"] += 1
            angles.append(round(np.degrees(np.arctan2(-matrix[0, 1], matrix[0, 0])), 6))
    # Each of the four reflections 1/8; a turn 1/4 (of which 1 in 40 is by 0 degrees); nothing 1/4.
    assert sum(found.values()) == 2000
    assert len(found) == 6
    for name, count in found.items():
        share = count / 2000
        expected = {"none": 0.25 + 0.25 / 40, "turned": 0.25 * 39 / 40}.get(name, 0.125)
        assert share == pytest.approx(expected, abs=0.03), name
    assert all(angle == int(angle) for angle in angles)
    assert (min(angles), max(angles)) == (-20, 19)


def test_released_is_nearest_for_the_image_too() -> None:
    assert Geometry(odds="released").nearest
    assert not Geometry(rotation=20).nearest
    with pytest.raises(ValidationError, match="fixes everything"):
        Geometry(odds="released", rotation=5)


@given(seed=st.integers(0, 1000), index=st.integers(0, 50))
@settings(max_examples=25)
def test_draws_depend_on_their_key_alone(seed: int, index: int) -> None:
    plan = Geometry(rotation=30, scale=0.2, mirror="both", rot90=True, shift=0.1)
    drawn = draw(plan, seed, 3, "case", index, (20, 30))
    np.testing.assert_array_equal(drawn, draw(plan, seed, 3, "case", index, (20, 30)))
    for other in (
        draw(plan, seed + 1, 3, "case", index, (20, 30)),
        draw(plan, seed, 4, "case", index, (20, 30)),
        draw(plan, seed, 3, "case2", index, (20, 30)),
        draw(plan, seed, 3, "case", index + 1, (20, 30)),
    ):
        assert (drawn != other).any()


def test_draws_stay_in_their_ranges() -> None:
    plan = Geometry(rotation=30, scale=0.2)
    matrices = draw_batch(plan, 0, 0, [("a", k) for k in range(400)], (16, 16))
    angles = np.degrees(np.arctan2(-matrices[:, 0, 1], matrices[:, 0, 0]))
    factors = 1 / np.sqrt(np.linalg.det(matrices[:, :, :2]))
    assert -30 <= angles.min() < -25
    assert 25 < angles.max() <= 30
    assert 0.8 - 1e-9 <= factors.min() < 0.83
    assert 1.17 < factors.max() <= 1.2 + 1e-9
    assert (matrices[:, :, 2] == 0).all()


def test_a_kind_switched_on_leaves_the_others_as_they_were() -> None:
    alone = draw(Geometry(rotation=30), 0, 0, "a", 0, (16, 16))
    mirrored = draw(Geometry(rotation=30, mirror="rows"), 0, 0, "a", 0, (16, 16))
    np.testing.assert_allclose(np.abs(alone), np.abs(mirrored))


@pytest.mark.parametrize(
    ("mirror", "flips"), [("rows", {(1, 1), (-1, 1)}), ("columns", {(1, 1), (1, -1)})]
)
def test_mirrors(mirror: Any, flips: set[tuple[int, int]]) -> None:
    plan = Geometry(mirror=mirror)
    drawn = {
        (int(m[0, 0]), int(m[1, 1])) for m in (draw(plan, 0, 0, "a", k, (8, 8)) for k in range(40))
    }
    assert drawn == flips
    picture = _picture()
    np.testing.assert_array_equal(_apply(picture, np.diag([-1.0, 1.0])), picture[:, ::-1])


def test_probability_leaves_samples_alone() -> None:
    plan = Geometry(rotation=30, probability=0.25)
    alone = [bool((draw(plan, 0, 0, "a", k, (8, 8)) == IDENTITY).all()) for k in range(400)]
    assert np.mean(alone) == pytest.approx(0.75, abs=0.07)


def test_window_and_label_move_together_and_labels_stay_labels() -> None:
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.integers(0, 4, (3, 20, 16)).astype(np.uint8))
    image = label[:, None, None].float().expand(3, 3, 2, 20, 16).contiguous()
    plan = Geometry(rotation=40, scale=0.3, mirror="both", shift=0.1)
    matrices = draw_batch(plan, 1, 2, [("a", k) for k in range(3)], (20, 16))
    moved, moved_label = sample_affine(image, label, matrices, torch.zeros(3, 2), nearest=True)
    assert moved_label.dtype == torch.uint8
    assert moved.shape == image.shape
    for step in range(3):
        for channel in range(2):
            torch.testing.assert_close(moved[:, step, channel], moved_label.float())
    smooth, again = sample_affine(image, label, matrices, torch.zeros(3, 2))
    torch.testing.assert_close(again, moved_label)
    assert smooth.min() >= 0
    assert smooth.max() <= 3 + 1e-5


@pytest.mark.parametrize("plan", [Geometry(rotation=40, rot90=True), Geometry(odds="released")])
def test_the_image_is_worked_in_only_where_that_is_allowed(plan: Geometry) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(6, 3, 2, 12, 12)).astype(np.float32))
    label = torch.from_numpy(rng.integers(0, 4, (6, 12, 12)).astype(np.uint8))
    outside = torch.from_numpy(rng.normal(size=(6, 2)).astype(np.float32))
    matrices = draw_batch(plan, 1, 2, [("a", k) for k in range(6)], (12, 12))
    kept = image.clone()
    apart = sample_affine(image, label, matrices, outside, nearest=plan.nearest)
    assert torch.equal(image, kept)
    within = sample_affine(image, label, matrices, outside, nearest=plan.nearest, overwrite=True)
    assert torch.equal(within[0], apart[0])
    assert torch.equal(within[1], apart[1])


def test_what_comes_from_beyond_the_edge() -> None:
    image = torch.full((1, 1, 2, 8, 8), 5.0)
    label = torch.ones(1, 8, 8, dtype=torch.uint8)
    far = np.array([[[1.0, 0, 5], [0, 1, 0]]])
    moved, moved_label = sample_affine(image, label, far, torch.tensor([[-1.5, 2.0]]))
    assert (moved[0, 0, 0] == -1.5).all()
    assert (moved[0, 0, 1] == 2.0).all()
    assert (moved_label == 0).all()


def test_overlapping_labels() -> None:
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 3, 8, 8))).byte()
    turned = np.stack([quarter_turns(1)] * 2)
    matrices = np.concatenate([turned, np.zeros((2, 2, 1))], axis=2)
    moved = sample_affine(torch.zeros(2, 1, 1, 8, 8), label, matrices, torch.zeros(2, 1))[1]
    torch.testing.assert_close(moved, torch.rot90(label, 1, (2, 3)))


def test_options() -> None:
    assert Geometry(mirror=True).mirror == "both"
    assert Geometry(mirror=False) == Geometry()
    assert not Geometry().active
    assert Geometry(rot90=True).active
    assert Geometry(odds="released").active
    for wrong in ({"rotation": -1}, {"scale": 1.0}, {"mirror": "up"}, {"rotate": 3}):
        with pytest.raises(ValidationError):
            Geometry(**wrong)
    written = Geometry(rotation=30, scale=0.2, mirror="both")
    assert Geometry.model_validate(written.model_dump()) == written
    released = Geometry(odds="released")
    assert Geometry.model_validate(released.model_dump()) == released
