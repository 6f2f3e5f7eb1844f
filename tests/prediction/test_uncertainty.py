"""Maps of uncertainty, and temperatures: by hand, and what they must leave alone."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segweave.data.specs import InputSpec, TargetSpec, decide
from segweave.errors import InputError, UsageError
from segweave.prediction import Ensemble, Predictor, Tiles, load, predict, predict_files
from segweave.prediction.temperature import (
    fit_temperature,
    kept_temperature,
    logits_of,
    negative_log_likelihood,
    probabilities_of,
    scaled,
)
from segweave.prediction.uncertainty import entropy
from tests.prediction.tiny import (
    BINARY,
    OVERLAPPING,
    TARGET,
    recipe_of,
    unet,
    volume_case,
    write_model,
)
from tests.small import write_volume

TARGETS = (TARGET, BINARY, OVERLAPPING)


def maps_of(target: TargetSpec, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (target.classes, 5, 6)).astype(np.float32)
    return probabilities_of(logits, target, axis=0)


def decided_network(predictor: Predictor) -> Predictor:
    """The predictor with logits that are far from 0, as those of a trained one are."""
    network = predictor.network.network
    with torch.no_grad():
        last = [p for p in network.parameters() if p.ndim == 4 and len(p) == network.classes][-1]
        last.mul_(100)
    return predictor


def test_entropy_by_hand() -> None:
    even, sure = np.full((3, 1, 1), 1 / 3, np.float32), np.array([[[1]], [[0]], [[0]]], np.float32)
    assert entropy(even, TARGET) == pytest.approx(1)
    assert entropy(sure, TARGET) == pytest.approx(0, abs=1e-6)
    half = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert entropy(np.full((1, 1, 1), 0.25, np.float32), BINARY) == pytest.approx(half)
    # Classes that overlap: the mean over channels, each of them certain or not by itself.
    both = np.array([[[0.5]], [[1.0]]], np.float32)
    assert entropy(both, OVERLAPPING) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.kind)
def test_a_temperature_is_that_of_the_logits_and_keeps_the_order(target: TargetSpec) -> None:
    maps = maps_of(target)
    for temperature in (0.5, 1.0, 3.0):
        found = scaled(maps, target, temperature)
        again = probabilities_of(logits_of(maps, target) / temperature, target, axis=0)
        np.testing.assert_allclose(found, again, rtol=1e-5)
        assert found.dtype == np.float32
        if target.kind == "exclusive":
            np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
        np.testing.assert_array_equal(decide(found, target), decide(maps, target))
        # There and back.
        np.testing.assert_allclose(scaled(found, target, 1 / temperature), maps, rtol=2e-3)
    assert entropy(scaled(maps, target, 4.0), target).mean() > entropy(maps, target).mean()
    sure = np.zeros_like(maps)
    sure[0] = 1
    assert np.isfinite(scaled(sure, target, 0.05)).all()


@given(st.sampled_from(TARGETS), st.floats(0.3, 4), st.integers(0, 1000))
@settings(max_examples=12, deadline=None)
def test_the_fit_finds_the_temperature_that_was_taken(
    target: TargetSpec, temperature: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (20_000, target.classes))
    chances = probabilities_of(logits.astype(np.float32), target, axis=1)
    if target.kind == "exclusive":
        truth = (chances.cumsum(axis=1) < draw.random((len(logits), 1))).sum(axis=1)
        truth = np.minimum(truth, target.classes - 1)
    else:
        truth = (draw.random(logits.shape) < chances).astype(int)
    found = fit_temperature(logits * temperature, truth, target)
    assert found == pytest.approx(temperature, rel=0.12)
    best = negative_log_likelihood(logits * temperature, truth, target, found)
    for other in (0.9 * found, 1.1 * found):
        assert negative_log_likelihood(logits * temperature, truth, target, other) > best


def test_a_fit_without_a_minimum_is_refused() -> None:
    logits = np.array([[3.0, -3.0, -3.0], [-3.0, 3.0, -3.0]] * 50)
    truth = np.array([0, 1] * 50)
    with pytest.raises(InputError, match="nearly every sampled voxel is right"):
        fit_temperature(logits, truth, TARGET)
    with pytest.raises(InputError, match="no better than chance"):
        fit_temperature(logits, 1 - truth, TARGET)


def test_a_temperature_belongs_to_one_combination() -> None:
    entry = {"members": ["a", "b"], "flips": "none", "tiles": None, "temperature": 1.5}
    cards = [{"weights_sha256": "b"}, {"weights_sha256": "a", "temperatures": [entry]}]
    assert kept_temperature(cards) == entry
    assert kept_temperature(cards[::-1]) == entry
    assert kept_temperature(cards, "rows") is None
    assert kept_temperature(cards, "none", Tiles()) is None
    assert kept_temperature(cards[1:]) is None
    damaged = {**cards[1], "temperatures": [{**entry, "temperature": "hot"}]}
    with pytest.raises(InputError, match="'hot'"):
        kept_temperature([cards[0], damaged])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.kind)
@pytest.mark.parametrize("tiles", [None, Tiles((16, 16))], ids=["whole", "tiles"])
def test_mutual_information_in_plain_words(target: TargetSpec, tiles: Tiles | None) -> None:
    members = tuple(decided_network(unet(name, target=target)) for name in ("mean", None))
    case = volume_case(slices=3)
    # Each view alone: the image and its mirror image, through each network.
    mirrored = volume_case(slices=3)
    object.__setattr__(mirrored, "image", np.ascontiguousarray(case.image[..., ::-1]))
    views = []
    for member in members:
        for image, step in ((case, 1), (mirrored, -1)):
            found = predict(Ensemble((member,), tiles=tiles), image, probabilities=True)
            assert found.probabilities is not None
            views.append(found.probabilities[..., ::step])
    mean = np.mean(views, axis=0)
    wanted = np.stack(
        [
            entropy(mean[i], target) - np.mean([entropy(v[i], target) for v in views], axis=0)
            for i in range(3)
        ]
    )
    model = Ensemble(members, flips="rows", tiles=tiles)
    plain = predict(model, case)
    found = predict(model, case, probabilities=True, uncertainty="mutual-information")
    assert found.uncertainty is not None
    assert found.uncertainty.dtype == np.float32
    assert found.uncertainty.shape == (3, *case.size)
    np.testing.assert_allclose(found.uncertainty, np.clip(wanted, 0, 1), atol=2e-5)
    assert found.uncertainty.max() > 1e-2
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert plain.uncertainty is None
    entropies = predict(model, case, uncertainty="entropy").uncertainty
    assert entropies is not None
    # What members disagree on is part of the whole.
    assert (entropies >= found.uncertainty - 1e-6).all()


def test_members_that_agree_have_no_mutual_information() -> None:
    one = unet("mean")
    found = predict(Ensemble((one, one)), volume_case(slices=2), uncertainty="mutual-information")
    assert found.uncertainty is not None
    assert found.uncertainty.max() == 0
    with pytest.raises(UsageError, match="at least two predictions"):
        predict(one, volume_case(slices=2), uncertainty="mutual-information")
    with pytest.raises(UsageError, match="entropy"):
        predict(one, volume_case(slices=2), uncertainty="entropie")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.kind)
def test_a_card_calibrates_probabilities_and_no_label(target: TargetSpec, tmp_path: Path) -> None:
    target = target.model_copy(update={"threshold": 0.3})
    case = volume_case(slices=2)
    folder = write_model(tmp_path / "run", unet(None, target=target), recipe_of(None))
    raw = predict(load(folder, device="cpu"), case, probabilities=True)
    card = load(folder, device="cpu").card
    entry = {"members": [card["weights_sha256"]], "flips": "none", "tiles": None}
    entry["temperature"] = 2.5
    write_model(tmp_path / "run", unet(None, target=target), recipe_of(None), temperatures=[entry])
    predictor = load(folder, device="cpu")
    assert predictor.temperature == 2.5
    found = predict(predictor, case, probabilities=True, uncertainty="entropy")
    assert found.probabilities is not None
    assert raw.probabilities is not None
    np.testing.assert_allclose(
        found.probabilities, scaled(raw.probabilities, target, 2.5), rtol=1e-5
    )
    # A threshold that is not 0.5 would mark other pixels at another temperature: it does not.
    np.testing.assert_array_equal(found.labels, raw.labels)
    assert found.uncertainty is not None
    np.testing.assert_allclose(found.uncertainty[0], entropy(found.probabilities[0], target))
    refused = load(folder, device="cpu", calibrated=False)
    assert refused.temperature is None
    again = predict(refused, case, probabilities=True).probabilities
    np.testing.assert_array_equal(again, raw.probabilities)
    # It was fitted for this one model alone.
    assert Ensemble((predictor,), flips="rows").temperature is None
    assert Ensemble((predictor, predictor)).temperature is None
    assert Ensemble((predictor,)).temperature == 2.5
    assert Ensemble((predictor,)).card["temperature"] == 2.5


def test_files_of_uncertainty(tmp_path: Path) -> None:
    volume = write_volume(tmp_path / "in" / "scan.nii.gz", (20, 18, 3))
    noise = np.random.default_rng(0).integers(0, 255, (18, 20)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "photo.png")
    np.savez(tmp_path / "in" / "array.npz", image=noise[None, None].astype(np.float32))
    predictor: Predictor = unet(None, spec=InputSpec(size=(16, 16), slices=1))
    out = tmp_path / "out"
    report = predict_files(predictor, tmp_path / "in", out, overlays=False, uncertainty="entropy")
    assert not report.failures
    assert {path.name for path in (out / "uncertainty").iterdir()} == {
        "scan.nii.gz", "photo.png", "array.npz",
    }  # fmt: skip
    written, source = (nibabel.load(path) for path in (out / "uncertainty/scan.nii.gz", volume))
    assert written.shape == source.shape
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(written.affine, source.affine)
    values = written.get_fdata()
    assert 0 <= values.min() < values.max() <= 1
    grey = np.asarray(Image.open(out / "uncertainty" / "photo.png"))
    assert (grey.shape, grey.dtype) == ((18, 20), np.uint8)
    assert grey.max() > 0
    with np.load(out / "uncertainty" / "array.npz") as arrays:
        assert arrays["uncertainty"].shape == (1, 18, 20)
    # Asked again without it, nothing of it is in the way; with it, what is there is kept.
    with pytest.raises(UsageError, match="without results"):
        predict_files(predictor, tmp_path / "in", out, overlays=False, uncertainty="entropy")
