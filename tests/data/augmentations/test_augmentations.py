"""What holds for every augmentation, and each against an independent formula."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segweave import registry
from segweave.data.augmentations.base import Samples, WindowShape
from segweave.data.augmentations.blur import Blur
from segweave.data.augmentations.brightness import Brightness
from segweave.data.augmentations.colour_jitter import ColourJitter, turn_hue
from segweave.data.augmentations.contrast import Contrast
from segweave.data.augmentations.elastic import Elastic
from segweave.data.augmentations.gamma import Gamma
from segweave.data.augmentations.geometry import Geometry
from segweave.data.augmentations.noise import Noise
from segweave.data.augmentations.plan import AugmentationPlan, create, undo
from segweave.data.specs import AugmentationTerm, InputSpec
from segweave.errors import SegweaveError, UsageError

RGB = InputSpec(
    channels=("red", "green", "blue"), colour_order="rgb", normalisation="imagenet", slices=3
)
KEYS = [("a", 0), ("a", 1), ("b|2", 0), ("b", 7), ("c", 3)]
NAMES = list(registry.augmentations.cards())


def samples_of(seed: int = 0, *, slices: int = 3, size: tuple[int, int] = (12, 14)) -> Samples:
    """Five RGB windows, normalised as `imagenet`, with labels of four classes."""
    chance = np.random.default_rng(seed)
    rgb = chance.random((len(KEYS), 3, 3, *size)).astype(np.float32)
    rgb = ndimage.gaussian_filter(rgb, (0, 0, 0, 1, 1))
    mean, sd = np.asarray((0.485, 0.456, 0.406)), np.asarray((0.229, 0.224, 0.225))
    image = (rgb - mean[:, None, None]) / sd[:, None, None]
    if slices == 1:
        image = image[:, 1:2]
    label = chance.integers(0, 4, (len(KEYS), 1, *size)).astype(np.uint8)
    return Samples(
        torch.from_numpy(image.astype(np.float32)),
        torch.from_numpy(label),
        torch.from_numpy(np.tile(-mean / sd, (len(KEYS), 1)).astype(np.float32)),
        RGB,
    )


def plan_of(*names: str, probability: float = 1.0) -> AugmentationPlan:
    """A plan of augmentations with their strong options."""
    return AugmentationPlan(
        tuple(
            AugmentationTerm(
                name=name,
                probability=probability,
                options=registry.augmentations.card(name).strong_options,
            )
            for name in names
        ),
        RGB,
    )


def applied(plan: AugmentationPlan, samples: Samples, seed: int = 0, epoch: int = 0) -> Samples:
    return plan.apply(samples, seed, epoch, KEYS)[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_augmentation_changes_what_its_card_says(name: str) -> None:
    before, after = samples_of(), applied(plan_of(name), samples_of())
    assert after.image.shape == before.image.shape
    assert after.image.dtype == torch.float32
    assert after.maps.dtype == torch.uint8
    assert torch.isfinite(after.image).all()
    changed = (after.image - before.image).abs().amax(dim=(1, 2, 3, 4))
    assert (changed > 0.05).all()
    moves = registry.augmentations.card(name).changes == "positions"
    assert (after.maps != before.maps).any() == moves


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_depends_on_seed_epoch_case_slice_and_name_alone(name: str) -> None:
    plan = plan_of(name, probability=0.7)
    whole = applied(plan, samples_of())
    assert torch.equal(whole.image, applied(plan, samples_of()).image)
    for row in range(len(KEYS)):
        one = samples_of()
        one = one._replace(
            image=one.image[row : row + 1],
            maps=one.maps[row : row + 1],
            outside=one.outside[row : row + 1],
        )
        alone = plan.apply(one, 0, 0, KEYS[row : row + 1])[0]
        torch.testing.assert_close(alone.image[0], whole.image[row], rtol=0, atol=1e-5)
        assert torch.equal(alone.maps[0], whole.maps[row])
    for other in (applied(plan, samples_of(), seed=1), applied(plan, samples_of(), epoch=1)):
        assert not torch.equal(other.image, whole.image)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_single_slices_sees_the_same_middle_slices(name: str) -> None:
    plan = plan_of(name)
    window = applied(plan, samples_of())
    single = applied(plan, samples_of(slices=1))
    torch.testing.assert_close(single.image[:, 0], window.image[:, 1], rtol=0, atol=1e-5)
    assert torch.equal(single.maps, window.maps)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "geometry"])
def test_probability_is_the_share_of_samples_that_change(name: str) -> None:
    assert not plan_of(name, probability=0)
    plan, changed, count = plan_of(name, probability=0.3), 0, 0
    for epoch in range(40):
        samples = samples_of(size=(6, 6))
        before = samples.image.clone()
        after = applied(plan, samples, epoch=epoch)
        changed += int((after.image != before).flatten(1).any(1).sum())
        count += len(KEYS)
    assert changed / count == pytest.approx(0.3, abs=0.12)


def test_adding_an_augmentation_leaves_the_others_draws() -> None:
    alone = plan_of("elastic", probability=0.5).apply(samples_of(), 3, 1, KEYS)[1]
    among = plan_of("noise", "elastic", "geometry", probability=0.5)
    among_moves = among.apply(samples_of(), 3, 1, KEYS)[1]
    assert alone[0][1] == among_moves[0][1]
    np.testing.assert_array_equal(alone[0][2], among_moves[0][2])


def test_the_mapping_is_the_list_with_geometry_alone() -> None:
    options = {"rotation": 40, "mirror": "both", "scale": 0.1}
    mapping = AugmentationPlan(Geometry(probability=0.6, **options), RGB)
    term = AugmentationTerm(name="geometry", probability=0.6, options=options)
    one, other = (
        applied(mapping, samples_of()),
        applied(AugmentationPlan((term,), RGB), samples_of()),
    )
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.maps, other.maps)
    released = AugmentationTerm(name="geometry", options={"odds": "released"})
    one = applied(AugmentationPlan(Geometry(odds="released"), RGB), samples_of())
    other = applied(AugmentationPlan((released,), RGB), samples_of())
    assert torch.equal(one.image, other.image)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("geometry", {}),
        ("brightness", {"strength": 0}),
        ("contrast", {"factor": (1, 1)}),
        ("gamma", {"power": (1, 1)}),
        ("noise", {"strength": (0, 0)}),
        ("blur", {"sigma": (0, 0)}),
        ("colour-jitter", {}),
        ("elastic", {"strength": 0}),
        ("flip", {"rows": 0, "columns": 0}),
        ("shear", {"rows": 0}),
        ("sharpness", {"factor": (1, 1)}),
    ],
)
def test_without_strength_nothing_happens(name: str, options: dict[str, Any]) -> None:
    assert not AugmentationPlan((AugmentationTerm(name=name, options=options),), RGB)
    augmentation = create(AugmentationTerm(name=name, options=options))
    samples, before = samples_of(), samples_of()
    stream = np.random.default_rng(0)
    shape = (3, 3, 12, 14)
    numbers = np.stack([augmentation.draw(stream, WindowShape(*shape)) for _ in KEYS])
    after = augmentation.apply(samples, numbers)
    torch.testing.assert_close(after.image, before.image, rtol=0, atol=1e-5)
    assert torch.equal(after.maps, before.maps)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([{"name": "nois"}], "did you mean noise"),
        ([{"name": "noise", "options": {"strenght": 1}}], "did you mean strength"),
        ([{"name": "noise", "options": {"strength": (2, 1)}}], "strength of noise"),
        ([{"name": "blur", "options": {"sigma": (-1, 1)}}], "sigma of blur"),
        ([{"name": "elastic", "options": {"points": 1}}], "points from 2"),
        ([{"name": "gamma", "options": {"power": (0, 1)}}], "power of gamma"),
        ([{"name": "brightness", "options": {"strength": -1}}], "strength of brightness"),
        ([{"name": "colour-jitter", "options": {"hue": 0.6}}], "hue at most"),
        ([{"name": "geometry", "options": {"rotatoin": 3}}], "did you mean rotation"),
        ([{"name": "geometry", "options": {"rotation": -3}}], "rotation"),
        ([{"name": "geometry", "options": {"probability": 0.5}}], "beside name"),
        ([{"name": "flip", "options": {"rows": 1.5}}], "probabilities from 0"),
        ([{"name": "shear", "options": {"rows": 90}}], "rows and columns of shear"),
        ([{"name": "shear", "options": {"rows": 50, "columns": 50}}], "less than 90"),
        ([{"name": "coarse-dropout", "options": {"size": 0}}], "holes from 1"),
        ([{"name": "sharpness", "options": {"factor": (2, 1)}}], "factor of sharpness"),
        ([{"name": "noise"}, {"name": "noise"}], "noise twice"),
    ],
)
def test_wrong_choices_are_refused(terms: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SegweaveError, match=message):
        AugmentationPlan(tuple(AugmentationTerm(**term) for term in terms), RGB)


def test_colour_jitter_of_grey_images_is_refused() -> None:
    with pytest.raises(UsageError, match="colour_order: rgb"):
        AugmentationPlan((AugmentationTerm(name="colour-jitter"),), InputSpec())


# Each against an independent formula.


def one_number(value: float) -> torch.Tensor:
    return torch.full((len(KEYS),), value)


def test_brightness_contrast_and_noise_are_in_standard_deviations() -> None:
    samples = samples_of()
    image = samples.image.numpy().astype(np.float64)
    middle = image[:, 1:2]
    sd, mean = middle.std((-2, -1), keepdims=True), middle.mean((-2, -1), keepdims=True)
    brighter = Brightness().change(samples, one_number(0.4)).numpy()
    np.testing.assert_allclose(brighter, image + 0.4 * sd, atol=1e-5)
    stretched = Contrast().change(samples, one_number(1.5)).numpy()
    expected = (mean + 1.5 * (image - mean)).clip(
        image.min((-2, -1), keepdims=True), image.max((-2, -1), keepdims=True)
    )
    np.testing.assert_allclose(stretched, expected, atol=1e-5)
    field = torch.ones_like(samples.image)
    np.testing.assert_allclose(Noise().change(samples, 0.2 * field), image + 0.2 * sd, atol=1e-5)


def test_noise_is_normal_and_independent_between_slices() -> None:
    noise = Noise(strength=(1.0, 1.0))
    field = noise.draw(np.random.default_rng(0), WindowShape(3, 1, 200, 200))
    assert field.mean() == pytest.approx(0, abs=0.02)
    assert field.std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(field.reshape(3, -1)) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("power", [0.6, 1.0, 2.5])
def test_gamma_is_a_power_between_black_and_white(power: float) -> None:
    samples = samples_of()
    mean, sd = np.asarray((0.485, 0.456, 0.406)), np.asarray((0.229, 0.224, 0.225))
    image = samples.image.numpy().astype(np.float64)
    rgb = image * sd[:, None, None] + mean[:, None, None]
    expected = (rgb.clip(0) ** power - mean[:, None, None]) / sd[:, None, None]
    plain = Gamma(keep_statistics=False).change(samples, one_number(power)).numpy()
    np.testing.assert_allclose(plain, expected, atol=1e-4)
    kept = Gamma().change(samples, one_number(power)).numpy()
    for statistic in (np.mean, np.std):
        np.testing.assert_allclose(
            statistic(kept[:, 1], axis=(-2, -1)), statistic(image[:, 1], axis=(-2, -1)), atol=1e-4
        )


def test_gamma_of_grey_images_runs_from_the_case_s_least_value() -> None:
    image = torch.rand(1, 1, 1, 8, 8)
    samples = Samples(image, torch.zeros(1, 1, 8, 8).byte(), torch.tensor([[-1.0]]), InputSpec())
    white = float(image.max())
    expected = -1 + (white + 1) * ((image + 1) / (white + 1)) ** 2
    changed = Gamma(keep_statistics=False).change(samples, torch.tensor([2.0]))
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.0])
def test_blur_is_that_of_scipy(sigma: float) -> None:
    samples = samples_of()
    blurred = Blur(sigma=(0.1, 2.0)).change(samples, one_number(sigma)).numpy()
    expected = ndimage.gaussian_filter(
        samples.image.numpy(), (0, 0, 0, sigma, sigma), mode="nearest", truncate=6 / sigma
    )
    np.testing.assert_allclose(blurred, expected, atol=1e-4)


@given(turn=st.floats(-0.5, 0.5), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_hues_turn_as_in_hsv(turn: float, seed: int) -> None:
    rgb = np.random.default_rng(seed).random((1, 1, 3, 4, 4)).round(2)
    turned = turn_hue(torch.from_numpy(rgb), torch.full((1, 1, 1, 1, 1), turn).double()).numpy()
    for y, x in np.ndindex(4, 4):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb[0, 0, :, y, x])
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(turned[0, 0, :, y, x], expected, atol=1e-6)


def test_colour_jitter_agrees_with_torchvision() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    samples = samples_of(slices=1)
    mean, sd = np.asarray((0.485, 0.456, 0.406)), np.asarray((0.229, 0.224, 0.225))
    rgb = samples.image[:, 0].double().numpy() * sd[:, None, None] + mean[:, None, None]
    expected = torch.from_numpy(rgb)
    expected = functional.adjust_brightness(expected, 1.2)
    expected = functional.adjust_contrast(expected, 0.7)
    expected = functional.adjust_saturation(expected, 1.4)
    expected = functional.adjust_hue(expected, 0.1)
    numbers = torch.tensor([[1.2, 0.7, 1.4, 0.1]]).expand(len(KEYS), -1)
    jitter = ColourJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
    ours = jitter.change(samples, numbers)[:, 0].double().numpy()
    ours = ours * sd[:, None, None] + mean[:, None, None]
    np.testing.assert_allclose(ours, expected.numpy(), atol=2e-4)


# Moving pixels.


def coordinates(size: tuple[int, int]) -> Samples:
    """An image whose two channels are the pixel's row and column, and labels that are the same."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows, columns])[None, None].astype(np.float32)
    maps = np.stack([rows, columns])[None].astype(np.uint8)
    return Samples(
        torch.from_numpy(image),
        torch.from_numpy(maps),
        torch.zeros(1, 2),
        InputSpec(channels=("r", "c")),
    )


@given(seed=st.integers(0, 10_000), strength=st.floats(0.005, 0.08), points=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_elastic_moves_image_and_label_together(seed: int, strength: float, points: int) -> None:
    elastic = Elastic(strength=strength, points=points)
    samples = coordinates((30, 40))
    numbers = elastic.draw(np.random.default_rng(seed), WindowShape(1, 2, 30, 40))[None]
    grid = elastic.positions(numbers, samples.image[:, 0])
    moved = elastic.apply(samples, numbers)
    # Inside, where no pixel comes from beyond the edge.
    inside = (grid.abs() < 1 - 2 / 30).all(-1)[0]
    difference = (moved.image[0, 0] - moved.maps[0].float()).abs().amax(0)
    assert difference[inside].max() <= 0.5 + 1e-3


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_elastic_displacements_are_those_of_the_points(seed: int) -> None:
    elastic = Elastic(strength=0.05, points=3)
    numbers = elastic.draw(np.random.default_rng(seed), WindowShape(1, 1, 33, 33))[None]
    grid = elastic.positions(numbers, torch.zeros(1, 1, 33, 33))[0].numpy()
    still = (2 * np.arange(33) + 1) / 33 - 1
    for row, column in np.ndindex(3, 3):
        y, x = 16 * row, 16 * column
        moved = grid[y, x] - (still[x], still[y])
        np.testing.assert_allclose(moved, 2 * numbers[0, :, row, column], atol=1e-5)


def blob(size: tuple[int, int] = (48, 40)) -> torch.Tensor:
    """A smooth mask in the middle of an image."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(size), 4)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = (np.abs(rows - size[0] / 2) < size[0] / 4) & (np.abs(columns - size[1] / 2) < 10)
    return torch.from_numpy((centre & (noise > 0.42)).astype(np.uint8))


@pytest.mark.parametrize(
    ("term", "agreement"),
    [
        ({"name": "geometry", "options": {"rotation": 60, "scale": 0.2, "mirror": "both"}}, 0.9),
        ({"name": "geometry", "options": {"odds": "released"}}, 0.9),
        ({"name": "geometry", "options": {"mirror": "both"}}, 1.0),
        ({"name": "elastic", "options": {"strength": 0.04}}, 0.9),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_what_was_moved_can_be_brought_back(
    term: dict[str, Any], agreement: float, seed: int
) -> None:
    mask = blob()
    maps = mask.expand(len(KEYS), 1, -1, -1).clone()
    image = torch.zeros(len(KEYS), 1, 3, *mask.shape)
    samples = Samples(image, maps, torch.zeros(len(KEYS), 3), RGB)
    plan = AugmentationPlan((AugmentationTerm(**term), AugmentationTerm(name="noise")), RGB)
    moved, moves = plan.apply(samples, seed, 0, KEYS)
    back, known = undo(moved.maps, moves)
    for row in range(len(KEYS)):
        overlap = int((back[row, 0] & mask).sum())
        dice = 2 * overlap / int(back[row, 0].sum() + mask.sum())
        assert dice >= agreement
    # The middle is shown by all of them.
    assert known[:, 0, 20:28, 16:24].all()


def test_what_an_augmented_image_does_not_show_is_unknown() -> None:
    far = Geometry(shift=0.9)
    numbers = np.asarray([[[1.0, 0, 1.0], [0, 1, 0]]])
    maps = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    _, known = undo(maps, [(far, [0], numbers)])
    assert known[0, 0, :, 4:].all()
    assert not known[0, 0, :, :4].any()
