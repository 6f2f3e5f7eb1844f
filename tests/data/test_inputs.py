from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from segweave.data.case import Case
from segweave.data.inputs import (
    IMAGENET_MEAN,
    IMAGENET_SD,
    Placement,
    network_label,
    network_slice,
    normalise,
    placement,
    to_case_grid,
)
from segweave.data.specs import InputSpec, TargetSpec, decide
from segweave.errors import InputError, UsageError

sizes = st.tuples(st.integers(2, 24), st.integers(2, 24))


def _case(
    image: np.ndarray[Any, Any],
    label: np.ndarray[Any, Any] | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> Case:
    return Case(id="a", group="a", image=image, label=label, stack="space", spacing=spacing)


def _random(slices: int, channels: int, size: tuple[int, int], seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    image = rng.integers(-50, 900, (slices, channels, *size)).astype(np.int16)
    return _case(image, rng.integers(0, 4, (slices, *size)).astype(np.uint8), (10.0, 2.0, 1.0))


@given(size=sizes, slices=st.integers(1, 4), offset=st.integers(-1000, 1000))
@settings(max_examples=25)
def test_zscore_is_over_the_whole_case(size, slices, offset) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(abs(offset))
    image = rng.integers(0, 200, (slices, 1, *size)).astype(np.int16) + np.int16(offset)
    case = _case(image)
    spec = InputSpec(size=size)
    out = np.stack([network_slice(case, k, spec) for k in range(slices)]).astype(np.float64)
    assert out.dtype == np.float64
    assert abs(out.mean()) < 1e-5
    if image.min() < image.max():
        assert out.std() == pytest.approx(1, abs=1e-5)
    expected = (image - image.mean(dtype=np.float64)) / (image.std(dtype=np.float64) or 1)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_zscore_in_float64_survives_a_large_offset() -> None:
    image = (16_000_000 + np.arange(64).reshape(1, 1, 8, 8) % 2).astype(np.int32)
    out = network_slice(_case(image), 0, InputSpec(size=(8, 8)))
    np.testing.assert_allclose(np.unique(out), [-1, 1])


@pytest.mark.parametrize("normalisation", ["case-zscore", "case-minmax", "imagenet"])
@pytest.mark.parametrize("value", [0, 7, 0.1])
def test_constant_images_give_finite_input(normalisation: str, value: float) -> None:
    rgb = normalisation == "imagenet"
    spec = InputSpec(
        size=(5, 9),
        normalisation=normalisation,
        fit="pad",
        colour_order="rgb" if rgb else "grey",
        channels=("r", "g", "b") if rgb else ("grey",),
    )
    out = network_slice(_case(np.full((2, 1, 7, 6), value)), 1, spec)
    assert np.isfinite(out).all()
    if not rgb:
        assert (out == 0).all()


def test_minmax_clip_and_percentiles() -> None:
    image = np.arange(100, dtype=np.float32).reshape(1, 1, 10, 10)
    spec = InputSpec(size=(10, 10), normalisation="case-minmax", clip=(20, 60))
    out = network_slice(_case(image), 0, spec)
    np.testing.assert_allclose(out[0], (np.clip(image[0, 0], 20, 60) - 20) / 40, atol=1e-6)
    spec = InputSpec(size=(10, 10), normalisation="case-minmax", clip_percentiles=(0, 50))
    out = network_slice(_case(image), 0, spec)
    np.testing.assert_allclose(out[0], np.clip(image[0, 0], 0, 49.5) / 49.5, atol=1e-6)


def test_fixed_and_imagenet() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 4)).astype(np.uint8)
    rgb = {"colour_order": "rgb", "channels": ("r", "g", "b"), "size": (4, 4)}
    spec = InputSpec(normalisation="fixed", mean=(1, 2, 3), sd=(4, 5, 6), **rgb)
    np.testing.assert_allclose(
        network_slice(_case(image), 0, spec)[2], (image[0, 2] - 3.0) / 6, atol=1e-6
    )
    out = network_slice(_case(image), 0, InputSpec(normalisation="imagenet", **rgb))
    for channel in range(3):
        expected = (image[0, channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_SD[channel]
        np.testing.assert_allclose(out[channel], expected, atol=1e-6)


def test_grey_images_in_colour_networks_and_the_other_way() -> None:
    grey = _random(1, 1, (6, 6))
    rgb = InputSpec(size=(6, 6), colour_order="rgb", channels=("r", "g", "b"))
    out = network_slice(grey, 0, rgb)
    assert out.shape == (3, 6, 6)
    assert (out[0] == out[2]).all()
    with pytest.raises(InputError, match="grey_to_rgb"):
        network_slice(grey, 0, rgb.model_copy(update={"grey_to_rgb": "refuse"}))
    plain = InputSpec(size=(6, 6))
    stored_as_rgb = _case(np.repeat(grey.image, 3, axis=1))
    np.testing.assert_array_equal(network_slice(stored_as_rgb, 0, plain), out[:1])
    with pytest.raises(InputError, match="expected: 1"):
        network_slice(_random(1, 3, (6, 6)), 0, plain)


@pytest.mark.parametrize(("own", "wanted"), [(3, 1), (4, 1), (4, 3), (2, 3), (1, 2)])
def test_what_the_message_says_about_channels_works(own: int, wanted: int) -> None:
    names = tuple("abc"[:wanted])
    with pytest.raises(InputError) as refused:
        network_slice(_random(1, own, (6, 6)), 0, InputSpec(size=(6, 6), channels=names))
    advice = str(refused.value).split("in a recipe: ")[1]
    given = yaml.safe_load("\n".join(advice.replace("input.", "").split(" and ")))
    spec = InputSpec.model_validate({"size": (6, 6), **given})
    assert network_slice(_random(1, own, (6, 6)), 0, spec).shape == (own, 6, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_pixels_are_refused(bad: float) -> None:
    image = np.zeros((2, 1, 4, 4), np.float32)
    image[1, 0, 2, 2] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        normalise(_case(image), InputSpec(size=(4, 4)))


@given(size=sizes, wanted=sizes, fit=st.sampled_from(["stretch", "pad"]))
@settings(max_examples=60, deadline=None)
def test_labels_stay_labels(size, wanted, fit) -> None:  # type: ignore[no-untyped-def]
    case = _random(1, 1, size)
    spec = InputSpec(size=wanted, fit=fit)
    out = network_label(case, 0, spec)
    assert out.dtype == np.uint8
    assert out.shape == wanted
    assert case.label is not None
    assert set(np.unique(out)) <= {*np.unique(case.label).tolist(), 0}
    if size == wanted:
        np.testing.assert_array_equal(out, case.label[0])


def test_overlapping_labels_keep_their_class_axis() -> None:
    label = np.random.default_rng(0).integers(0, 2, (2, 3, 6, 6)).astype(np.uint8)
    case = _case(np.zeros((2, 1, 6, 6), np.uint8), label)
    assert network_label(case, 1, InputSpec(size=(12, 12))).shape == (3, 12, 12)
    np.testing.assert_array_equal(network_label(case, 1, InputSpec(size=(6, 6))), label[1])


@given(size=sizes, factor=st.sampled_from([1, 2, 3]))
@settings(max_examples=30, deadline=None)
def test_label_and_image_lie_on_the_same_pixel_centres(size, factor) -> None:  # type: ignore[no-untyped-def]
    wanted = (size[0] * factor, size[1] * factor)
    label = np.random.default_rng(1).integers(0, 2, (1, *size)).astype(np.uint8)
    case = _case(label[:, None].copy(), label)
    spec = InputSpec(
        size=wanted, normalisation="fixed", mean=(0,), sd=(1,), interpolation="nearest"
    )
    np.testing.assert_array_equal(network_slice(case, 0, spec)[0], network_label(case, 0, spec))
    np.testing.assert_array_equal(
        network_label(case, 0, spec), label[0].repeat(factor, 0).repeat(factor, 1)
    )


def test_linear_resizing_equals_pillow() -> None:
    image = np.random.default_rng(3).random((1, 1, 37, 50)).astype(np.float32)
    spec = InputSpec(size=(16, 64), normalisation="fixed", mean=(0,), sd=(1,))
    expected = np.asarray(Image.fromarray(image[0, 0]).resize((64, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(network_slice(_case(image), 0, spec)[0], expected, atol=1e-5)


@given(size=sizes, wanted=sizes)
@settings(max_examples=60, deadline=None)
def test_pad_keeps_the_shape_and_comes_back(size, wanted) -> None:  # type: ignore[no-untyped-def]
    case = _random(1, 1, size)
    spec = InputSpec(size=wanted, fit="pad", normalisation="case-minmax")
    place = placement(size, None, spec)
    assert wanted[0] == place.resized[0] or wanted[1] == place.resized[1]
    out = network_slice(case, 0, spec)
    assert out.shape == (1, *wanted)
    mask = np.ones(wanted, bool)
    mask[place.top : place.top + place.resized[0], place.left : place.left + place.resized[1]] = (
        False
    )
    assert (out[0][mask] == normalise(case, spec).outside[0]).all()
    assert (network_label(case, 0, spec)[mask] == 0).all()
    if place.resized == size:
        plain = network_slice(case, 0, InputSpec(size=size, normalisation="case-minmax"))
        np.testing.assert_array_equal(out[0][~mask].reshape(size), plain[0])
        back = to_case_grid(out, size, spec)
        np.testing.assert_array_equal(back, plain)


@given(size=sizes, wanted=sizes, fit=st.sampled_from(["stretch", "pad"]))
@settings(max_examples=60, deadline=None)
def test_probabilities_stay_probabilities(size, wanted, fit) -> None:  # type: ignore[no-untyped-def]
    raw = np.random.default_rng(0).random((4, *wanted)).astype(np.float32)
    raw /= raw.sum(axis=0)
    out = to_case_grid(raw, size, InputSpec(size=wanted, fit=fit))
    assert out.shape == (4, *size)
    assert out.dtype == np.float32
    assert out.min() >= 0
    np.testing.assert_allclose(out.sum(axis=0), 1, atol=1e-5)


@given(size=sizes, factor=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_labels_survive_a_round_trip_to_a_finer_grid(size, factor) -> None:  # type: ignore[no-untyped-def]
    case = _random(1, 1, size)
    spec = InputSpec(size=(size[0] * factor, size[1] * factor))
    label = network_label(case, 0, spec)
    one_hot = np.stack([label == k for k in range(4)]).astype(np.float32)
    target = TargetSpec(names=("a", "b", "c", "d"))
    back = decide(to_case_grid(one_hot, size, spec), target)
    if factor == 1:
        np.testing.assert_array_equal(back, case.label[0])  # type: ignore[index]
    else:
        assert (back == case.label[0]).mean() > 0.7  # type: ignore[index]


def test_pixel_size_in_mm() -> None:
    case = _random(1, 1, (10, 12))
    spec = InputSpec(size=None, spacing=(1.0, 0.5))
    assert network_slice(case, 0, spec).shape == (1, 20, 24)
    assert network_label(case, 0, spec).shape == (20, 24)
    assert to_case_grid(np.ones((2, 20, 24)), (10, 12), spec).shape == (2, 10, 12)
    with pytest.raises(InputError, match="no spacing"):
        network_slice(_case(case.image), 0, spec)


def test_wrong_uses_are_refused() -> None:
    case = _random(1, 1, (6, 6))
    with pytest.raises(InputError, match="a label"):
        network_label(_case(case.image), 0, InputSpec(size=(4, 4)))
    with pytest.raises(UsageError, match="4 × 4"):
        to_case_grid(np.ones((2, 4, 4)), (6, 6), InputSpec(size=(5, 5)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"slices": 2},
        {"slices": 5, "edge": "released"},
        {"size": None},
        {"spacing": (1.0, 1.0)},
        {"normalisation": "fixed"},
        {"normalisation": "fixed", "mean": (1, 2), "sd": (1, 2)},
        {"normalisation": "fixed", "mean": (1,), "sd": (0,)},
        {"colour_order": "rgb"},
        {"normalisation": "imagenet"},
        {"clip": (2, 1)},
        {"size": (0, 4)},
        {"sizes": (4, 4)},
    ],
)
def test_impossible_specs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InputSpec(**wrong)


def test_target_spec() -> None:
    exclusive = TargetSpec(names=("background", "a", "b"))
    assert (exclusive.classes, exclusive.foreground) == (3, {1: "a", 2: "b"})
    binary = TargetSpec(kind="binary", names=("background", "lesion"))
    assert (binary.classes, binary.foreground) == (1, {1: "lesion"})
    overlapping = TargetSpec(kind="overlapping", names=("a", "b"))
    assert (overlapping.classes, overlapping.foreground) == (2, {0: "a", 1: "b"})
    maps = np.array([[[0.5, 0.4]], [[0.2, 0.9]]])
    assert decide(maps, overlapping).tolist() == [[[1, 0]], [[0, 1]]]
    assert decide(maps[:1], binary).tolist() == [[1, 0]]
    assert decide(maps, TargetSpec(names=("a", "b"))).tolist() == [[0, 1]]
    for wrong in (
        {"names": ()},
        {"names": ("a",), "colours": ("#000000", "#ffffff")},
        {"kind": "binary", "names": ("a", "b", "c")},
    ):
        with pytest.raises(ValidationError):
            TargetSpec(**wrong)


def test_tile_keeps_the_resolution() -> None:
    case = _random(1, 1, (6, 7))
    spec = InputSpec(size=(4, 4), fit="tile")
    assert placement(case.size, case.spacing, spec) == Placement((6, 7), (6, 7))
    own = network_slice(case, 0, InputSpec(size=(6, 7)))
    np.testing.assert_array_equal(network_slice(case, 0, spec), own)
