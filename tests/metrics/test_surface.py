"""Surface distances: closed forms, properties, and independent tools."""

from __future__ import annotations

import importlib.util
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from segweave.errors import InputError, UsageError
from segweave.metrics import SurfaceDistances, labels, surface_distances
from segweave.metrics.area import area_distances
from segweave.metrics.surface import hausdorff, normalised_surface_distance

ENGINES = ["numpy"] + (["compiled"] if importlib.util.find_spec("numba") else [])

masks2d = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
volumes = arrays(np.uint8, st.just((4, 6, 5)), elements=st.sampled_from([0, 0, 1, 2]))
spacings = st.tuples(*[st.floats(0.2, 12)] * 3)


def brute(p: np.ndarray, r: np.ndarray, spacing: tuple[float, ...]) -> SurfaceDistances:
    """All pairs of surface voxels, the surface by SciPy's erosion."""
    cross = ndimage.generate_binary_structure(p.ndim, 1)
    a, b = (np.argwhere(m & ~ndimage.binary_erosion(m, cross)) * spacing for m in (p, r))
    d = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    if not d.size:
        return SurfaceDistances(np.full(len(a), np.inf), np.full(len(b), np.inf))
    return SurfaceDistances(d.min(axis=1), d.min(axis=0))


def box(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return out


@pytest.mark.parametrize("engine", ENGINES)
@given(prediction=volumes, reference=volumes, spacing=spacings)
@settings(max_examples=60, deadline=None)
def test_all_distances_equal_brute_force(
    engine: str, prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> None:
    found = surface_distances(prediction, reference, spacing, (1, 2), engine=engine)  # type: ignore[arg-type]
    for c in (1, 2):
        wanted = brute(prediction == c, reference == c, spacing)
        np.testing.assert_allclose(found[c].to_reference, wanted.to_reference, atol=1e-9)
        np.testing.assert_allclose(found[c].to_prediction, wanted.to_prediction, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@given(data=st.data(), spacing=st.tuples(*[st.floats(0.2, 12)] * 2))
@settings(max_examples=80, deadline=None)
def test_all_distances_of_images_equal_brute_force(
    engine: str, data: st.DataObject, spacing: tuple[float, float]
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    labels = arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2]))
    prediction, reference = data.draw(labels), data.draw(labels)
    found = surface_distances(prediction, reference, spacing, (1, 2), engine=engine)  # type: ignore[arg-type]
    for c in (1, 2):
        wanted = brute(prediction == c, reference == c, spacing)
        np.testing.assert_allclose(found[c].to_reference, wanted.to_reference, atol=1e-9)
        np.testing.assert_allclose(found[c].to_prediction, wanted.to_prediction, atol=1e-9)


@given(prediction=volumes, reference=volumes, spacing=spacings)
@settings(max_examples=40, deadline=None)
def test_steps_find_what_the_tree_finds(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> None:
    by_tree = surface_distances(prediction, reference, spacing, (1, 2), engine="numpy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "_FEW_POINTS", 0)
        by_steps = surface_distances(prediction, reference, spacing, (1, 2), engine="numpy")
    for c in (1, 2):
        np.testing.assert_allclose(by_steps[c].to_reference, by_tree[c].to_reference, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_far_voxels_are_exact_too(engine: str) -> None:
    generator = np.random.default_rng(3)
    prediction, reference = (
        ndimage.gaussian_filter(generator.normal(size=(6, 90, 80)), (1, 4, 4)) > 0.06
        for _ in range(2)
    )
    reference[:, :50] = False  # half of the prediction is far from everything
    spacing = (5.0, 1.2, 0.7)
    found = surface_distances(prediction, reference, spacing, (1,), engine=engine)[1]  # type: ignore[arg-type]
    wanted = brute(prediction, reference, spacing)
    assert wanted.hausdorff() > 40
    np.testing.assert_allclose(found.to_reference, wanted.to_reference, atol=1e-9)
    np.testing.assert_allclose(found.to_prediction, wanted.to_prediction, atol=1e-9)


@given(masks2d, st.data())
@settings(max_examples=60, deadline=None)
def test_two_axes_against_medpy(p: np.ndarray, data: st.DataObject) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    r = data.draw(arrays(np.bool_, st.just(p.shape)))
    assume(p.any() and r.any())
    spacing = data.draw(st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
    d = surface_distances(p, r, spacing, (1,))[1]
    assert d.hausdorff() == pytest.approx(binary.hd(p, r, spacing), abs=1e-9)
    assert d.hausdorff95("pooled") == pytest.approx(binary.hd95(p, r, spacing), abs=1e-9)
    assert d.average() == pytest.approx(binary.asd(p, r, spacing), abs=1e-9)
    assert d.average("to-prediction") == pytest.approx(binary.asd(r, p, spacing), abs=1e-9)
    assert d.average_symmetric() == pytest.approx(binary.assd(p, r, spacing), abs=1e-9)


@given(volumes, volumes, spacings)
@settings(max_examples=40, deadline=None)
def test_swapping_the_maps_swaps_the_directions(
    p: np.ndarray, r: np.ndarray, spacing: tuple[float, ...]
) -> None:
    there = surface_distances(p, r, spacing, (1, 2))
    back = surface_distances(r, p, spacing, (1, 2))
    for c in (1, 2):
        np.testing.assert_array_equal(there[c].to_reference, back[c].to_prediction)
        if there[c].defined:
            assert there[c].hausdorff95() == back[c].hausdorff95()
            assert there[c].hausdorff95("pooled") <= there[c].hausdorff()
            assert there[c].average() <= there[c].hausdorff()


@given(volumes, volumes, spacings, st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_moving_both_in_a_larger_array_changes_nothing(
    p: np.ndarray, r: np.ndarray, spacing: tuple[float, ...], shift: int
) -> None:
    wide_p, wide_r = (np.pad(m, [(shift, 4)] * 3) for m in (p, r))
    small = surface_distances(p, r, spacing, (1, 2))
    wide = surface_distances(wide_p, wide_r, spacing, (1, 2))
    for c in (1, 2):
        np.testing.assert_allclose(small[c].to_reference, wide[c].to_reference, atol=1e-9)


@given(volumes, volumes, st.floats(0.1, 20))
@settings(max_examples=30, deadline=None)
def test_distances_scale_with_the_spacing(p: np.ndarray, r: np.ndarray, factor: float) -> None:
    pixels = surface_distances(p, r, None, (1,))[1]
    scaled = surface_distances(p, r, (factor,) * 3, (1,))[1]
    np.testing.assert_allclose(scaled.to_reference, pixels.to_reference * factor, rtol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shifted_boxes(axis: int) -> None:
    spacing = (4.0, 1.5, 0.5)
    low, high = [4, 4, 4], [9, 9, 9]
    moved_low, moved_high = list(low), list(high)
    moved_low[axis] += 3
    moved_high[axis] += 3
    a = box((16, 16, 16), tuple(low), tuple(high))
    b = box((16, 16, 16), tuple(moved_low), tuple(moved_high))
    assert hausdorff(a, b, spacing) == pytest.approx(3 * spacing[axis])


def test_spheres_around_one_centre_are_as_far_apart_as_their_radii() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    d = surface_distances(radius <= 10, radius <= 16, (2.0, 2.0, 2.0), (1,))[1]
    for value in (d.average(), d.average("to-prediction"), d.average_symmetric(), d.hausdorff95()):
        assert value == pytest.approx(12, abs=2)  # one voxel


@pytest.mark.parametrize("engine", ENGINES)
def test_single_voxels(engine: str) -> None:
    a, b = np.zeros((5, 7, 9), np.uint8), np.zeros((5, 7, 9), np.uint8)
    a[0, 0, 0], b[4, 6, 8] = 1, 1
    d = surface_distances(a, b, (10.0, 1.0, 2.0), (1,), engine=engine)[1]  # type: ignore[arg-type]
    expected = math.sqrt(40**2 + 6**2 + 16**2)
    assert d.hausdorff() == d.hausdorff95() == pytest.approx(expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_arrays_edge_is_surface(engine: str) -> None:
    full = np.ones((6, 6), np.uint8)
    inner = box((6, 6), (2, 2), (4, 4)).astype(np.uint8)
    d = surface_distances(full, inner, None, (1,), engine=engine)[1]  # type: ignore[arg-type]
    assert d.to_reference.size == 20
    assert d.hausdorff() == pytest.approx(2 * math.sqrt(2))


def test_thin_structures_are_all_surface() -> None:
    line = np.zeros((9, 9), np.uint8)
    line[4, 1:8] = 1
    d = surface_distances(line, np.roll(line, 2, axis=0), (0.5, 3.0), (1,))[1]
    assert d.to_reference.tolist() == [1.0] * 7


def test_a_flat_volume_is_all_surface_in_3d_but_not_in_2d() -> None:
    flat = np.ones((1, 5, 5), np.uint8)
    assert surface_distances(flat, flat, None, (1,))[1].to_reference.size == 25
    assert surface_distances(flat[0], flat[0], None, (1,))[1].to_reference.size == 16


def test_the_two_percentiles_differ_as_they_should() -> None:
    d = SurfaceDistances(np.zeros(90), np.linspace(0, 9, 10))
    assert d.hausdorff95() == pytest.approx(8.55)
    pooled = np.percentile(np.concatenate([np.zeros(90), np.linspace(0, 9, 10)]), 95)
    assert d.hausdorff95("pooled") == pytest.approx(pooled)
    with pytest.raises(UsageError, match="pooled"):
        d.hausdorff95("pool")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="to-reference"):
        d.average("to-referenc")  # type: ignore[arg-type]


def test_a_class_missing_on_a_side_is_undefined() -> None:
    some = np.zeros((3, 4, 5), np.uint8)
    some[1, 1, 1] = 1
    none = np.zeros_like(some)
    for p, r in ((some, none), (none, some), (none, none)):
        d = surface_distances(p, r, None, (1,))[1]
        assert not d.defined
        for value in (d.hausdorff(), d.hausdorff95(), d.average(), d.average_symmetric()):
            assert math.isnan(value)
    assert normalised_surface_distance(some, none, None) == 0
    assert math.isnan(normalised_surface_distance(none, none, None))


@pytest.mark.slow
def test_max_percentile_and_symmetric_mean_against_monai() -> None:
    monai = pytest.importorskip("monai.metrics")
    import torch

    generator = np.random.default_rng(0)
    for _ in range(4):
        p, r = (
            ndimage.gaussian_filter(generator.normal(size=(8, 24, 20)), 2) > 0.02 for _ in range(2)
        )
        spacing = (4.0, 1.0, 1.5)
        a, b = (torch.from_numpy(m[None, None]).float() for m in (p, r))
        d = surface_distances(p, r, spacing, (1,))[1]
        options = {"include_background": True, "spacing": spacing}
        assert d.hausdorff95() == pytest.approx(
            monai.compute_hausdorff_distance(a, b, percentile=95, **options).item(), abs=1e-4
        )
        assert d.average_symmetric() == pytest.approx(
            monai.compute_average_surface_distance(a, b, symmetric=True, **options).item(), abs=1e-4
        )
        assert d.normalised(2.0) == pytest.approx(
            monai.compute_surface_dice(a, b, [2.0], **options).item(), abs=1e-4
        )


@given(st.integers(1, 9), st.integers(1, 60))
def test_rounding_decides_no_tie(steps: int, tenths: int) -> None:
    """Masks that lie k voxels of 0.1 j mm apart are within 0.1 jk mm and not within less."""
    one, other = np.zeros((2, 5, 12), bool)
    one[2, 1] = other[2, 1 + steps] = True
    spacing, tolerance = (9.0, tenths / 10), steps * tenths / 10
    for distances in (surface_distances, area_distances):
        d = distances(one, other, spacing, (1,))[1]
        assert d.normalised(tolerance * (1 - 1e-6)) < 1
        assert d.normalised(tolerance) == 1


def test_wrong_input() -> None:
    zero = np.zeros((4, 4), np.uint8)
    for spacing in ((1.0,), (1.0, 0.0), (1.0, math.nan), (1.0, 1.0, 1.0)):
        with pytest.raises(UsageError, match="spacing of 2"):
            surface_distances(zero, zero, spacing, (1,))
    with pytest.raises(InputError, match="one shape"):
        surface_distances(zero, np.zeros((1, 4, 4), np.uint8), None, (1,))
    with pytest.raises(UsageError, match="compiled"):
        surface_distances(zero + 1, zero + 1, None, (1,), engine="compile")  # type: ignore[arg-type]


def test_engines_agree_on_labels_of_many_classes() -> None:
    if len(ENGINES) < 2:
        pytest.skip("numba is not installed")
    labels = np.random.default_rng(5).integers(0, 4, (2, 5, 30, 30)).astype(np.uint8)
    both = [surface_distances(labels[0], labels[1], None, (3, 1), engine=e) for e in ENGINES]  # type: ignore[arg-type]
    for c, side in product((1, 3), ("to_reference", "to_prediction")):
        np.testing.assert_allclose(getattr(both[0][c], side), getattr(both[1][c], side), atol=1e-12)
