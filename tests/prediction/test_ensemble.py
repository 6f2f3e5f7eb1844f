"""Averaging runs, flips and tiles: equal to the plain computation, and refused where it makes no
sense.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec, decide
from segweave.errors import UsageError
from segweave.prediction import (
    Ensemble,
    Predictor,
    Tiles,
    load_ensemble,
    predict,
    predict_files,
)
from segweave.prediction.tiles import gaussian_weights, tile_starts
from segweave.weaving import weave
from tests.prediction.tiny import (
    BINARY,
    SPEC,
    TARGET,
    by_brightness,
    recipe_of,
    unet,
    volume_case,
    write_model,
)
from tests.small import write_volume


def maps(predictor, case):
    return predict(predictor, case, probabilities=True).probabilities


def mirrored(case, axes):
    return replace(case, image=np.flip(case.image, axes).copy() if axes else case.image)


def test_the_mean_of_runs_is_decided_once_on_the_cases_own_grid():
    case = volume_case()
    # Another module, another size: only the classes have to be the same.
    members = unet("conv"), by_brightness((16, 16)), unet(None, spec=InputSpec(size=(32, 16)))
    found = predict(Ensemble(members), case, probabilities=True)
    expected = np.mean([maps(member, case) for member in members], axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(found.labels, decide(found.probabilities, TARGET))
    assert np.abs(expected - maps(members[0], case)).max() > 1e-3


def test_one_member_without_flips_and_tiles_is_the_plain_prediction_bit_for_bit():
    case, predictor = volume_case(), unet("sa-lstm")
    np.testing.assert_array_equal(maps(Ensemble((predictor,)), case), maps(predictor, case))


@pytest.mark.parametrize(
    ("flips", "axes"),
    [("rows", [(), (3,)]), ("columns", [(), (2,)]), ("both", [(), (3,), (2,), (2, 3)])],
)
@pytest.mark.parametrize("context", [None, "conv"])
def test_flips_are_the_mean_over_mirrored_cases_turned_back(flips, axes, context):
    # Not square, so that axes can't be confused.
    predictor = unet(context, spec=InputSpec(size=(16, 32), slices=3))
    case = volume_case(slices=3, height=16, width=32)
    views = [np.flip(maps(predictor, mirrored(case, a)), a) for a in axes]
    found = maps(Ensemble((predictor,), flips=flips), case)
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-5)
    assert np.abs(found - views[0]).max() > 1e-3
    # What is averaged over mirror images turns with the image.
    turned = maps(Ensemble((predictor,), flips=flips), mirrored(case, axes[-1]))
    np.testing.assert_allclose(np.flip(turned, axes[-1]), found, atol=1e-5)


def test_runs_and_flips_together():
    case, members = volume_case(slices=2), (unet("conv"), unet("mean"))
    each = [maps(Ensemble((member,), flips="both"), case) for member in members]
    found = maps(Ensemble(members, flips="both"), case)
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        BINARY,
        TargetSpec(names=("background", "right", "left")),
        TargetSpec(names=TARGET.names, threshold=0.3),
    ],
)
def test_runs_of_other_classes_are_refused(other):
    with pytest.raises(UsageError, match="models of the same classes"):
        Ensemble((by_brightness((8, 8)), Predictor(nn.Identity(), SPEC, other)))


def test_other_colours_are_the_same_classes():
    other = TargetSpec(names=TARGET.names, colours=("#000", "#111", "#222"))
    Ensemble((by_brightness((8, 8)), Predictor(nn.Identity(), SPEC, other)))


def test_wrong_names_and_numbers():
    with pytest.raises(UsageError, match="did you mean rows"):
        Ensemble((by_brightness((8, 8)),), flips="row")
    with pytest.raises(UsageError, match="at least one model"):
        Ensemble(())
    with pytest.raises(UsageError, match="overlap"):
        Tiles(overlap=1.0)
    spacing = InputSpec(size=None, spacing=(1.0, 1.0))
    with pytest.raises(UsageError, match="Tiles\\(size="):
        maps(
            Ensemble((replace(by_brightness((8, 8)), input=spacing),), tiles=Tiles()),
            volume_case(affine=np.eye(4), spacing=(1.0, 1.0, 1.0)),
        )


# Tiles


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 0.95))
@settings(max_examples=200, deadline=None)
def test_tiles_cover_every_pixel_and_overlap_as_asked(length, tile, overlap):
    tile = min(tile, length)
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    steps = np.diff(starts)
    assert len(steps) == 0 or 1 <= steps.min() <= steps.max() <= max(1, tile * (1 - overlap)) + 1
    assert len(starts) <= np.ceil((length - tile) / max(1, np.floor(tile * (1 - overlap)))) + 1


def test_weights_are_largest_in_the_middle_and_positive_everywhere():
    weights = gaussian_weights((15, 33))
    assert weights.shape == (15, 33)
    assert np.unravel_index(weights.argmax(), weights.shape) == (7, 16)
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert weights[7, 16] / weights[7, 0] > 100


@pytest.mark.parametrize("shape", [(8, 8), (21, 30), (5, 40), (6, 7)])
def test_tiles_of_a_network_that_sees_one_pixel_are_the_whole_image(shape):
    # Larger, longer and smaller than a tile: what does not look around can't see the seams.
    case = volume_case(slices=4, height=shape[0], width=shape[1])
    expected = maps(by_brightness(shape), case)
    for predictor in (
        Ensemble((by_brightness((8, 8)),), tiles=Tiles(overlap=0.3)),
        Predictor(by_brightness((8, 8)).network, InputSpec(size=(8, 8), fit="tile"), TARGET),
    ):
        found = predict(predictor, case, probabilities=True)
        assert found.labels.shape == (4, *shape)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("memory", [1, 2**28])
def test_a_tile_is_the_plain_prediction_of_its_cut_whatever_the_blocks(memory, monkeypatch):
    monkeypatch.setattr("segweave.prediction.tiles._MEMORY", memory)
    spec = InputSpec(size=(16, 16), slices=3, normalisation="fixed", mean=(100.0,), sd=(20.0,))
    predictor = unet("conv", spec=spec)
    case = volume_case(slices=5, height=16, width=32, gaps=(3,))
    found = maps(Ensemble((predictor,), tiles=Tiles(overlap=0.0)), case)
    for left in (0, 16):
        cut = replace(case, image=case.image[..., left : left + 16])
        np.testing.assert_allclose(found[..., left : left + 16], maps(predictor, cut), atol=1e-5)


class OnOff(nn.Module):
    """Class 1 in the tile whose first pixel is bright, class 0 in others."""

    def forward(self, x):
        one = torch.where(x[:, :, :1, :1] > 0, 30.0, -30.0).expand(-1, -1, *x.shape[-2:])
        return one


def test_seams_are_weighted_by_the_distance_to_the_tiles_middle():
    image = np.full((1, 1, 8, 12), -1.0, np.float32)
    image[..., 0, 0] = 1.0  # the first of two tiles says 1, the second 0
    case = Case("seam", "seam", image, stack="single")
    spec = InputSpec(size=(8, 8), normalisation="fixed", mean=(0.0,), sd=(1.0,))
    woven = weave(OnOff(), "identity", at="output", slices=1, classes=1, channels=1)
    predictor = Predictor(woven, spec, TargetSpec(kind="binary", names=("on",)))
    found = maps(Ensemble((predictor,), tiles=Tiles(overlap=0.5)), case)[0, 0]
    assert (found[:, :4] > 0.999).all()
    assert (found[:, 8:] < 0.001).all()
    assert (np.diff(found[0, 4:8]) < 0).all(), "from one tile to the other, step by step"
    np.testing.assert_allclose(found[0, 4:8] + found[0, 4:8][::-1], 1, atol=1e-5)


def test_pixels_in_mm_are_resampled_then_tiled():
    spec = InputSpec(size=None, spacing=(2.0, 2.0), slices=1)
    predictor = replace(by_brightness((8, 8)), input=spec)
    affine = np.diag([4.0, 1.0, 1.0, 1.0])
    case = volume_case(slices=2, height=36, width=28, affine=affine, spacing=(4.0, 1.0, 1.0))
    tiled = maps(Ensemble((predictor,), tiles=Tiles(size=(8, 8))), case)
    np.testing.assert_allclose(tiled, maps(predictor, case), atol=1e-5)


# Files


def test_the_summary_names_the_models(tmp_path):
    paths = []
    for name, context in (("a", "conv"), ("b", "mean")):
        write_model(tmp_path / name, unet(context), recipe_of(context))
        paths.append(tmp_path / name)
    assert isinstance(load_ensemble(paths[:1], device="cpu"), Predictor)
    ensemble = load_ensemble(paths, flips="rows", tiles=Tiles(overlap=0.25), device="cpu")
    assert isinstance(ensemble, Ensemble)
    file = write_volume(tmp_path / "scan.nii.gz", shape=(20, 24, 2))
    report = predict_files(ensemble, file, tmp_path / "out", overlays=False)
    assert not report.failures
    model = json.loads(report.summary.read_text())["model"]
    assert [len(member["weights_sha256"]) for member in model["members"]] == [64, 64]
    assert (model["flips"], model["tiles"]) == ("rows", {"size": None, "overlap": 0.25})
