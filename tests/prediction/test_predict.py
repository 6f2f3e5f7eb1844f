"""Predicting one case: equal to the plain computation, and leaving everything as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segweave.data.inputs import network_slice, normalise, to_case_grid, window_indices
from segweave.data.specs import TargetSpec, decide
from segweave.errors import InputError, UsageError
from segweave.networks import Feedback
from segweave.prediction import Ensemble, Predictor, predict
from segweave.runtime.devices import denormals_are_flushed
from segweave.weaving import weave
from tests.prediction.tiny import (
    BINARY,
    OVERLAPPING,
    SPEC,
    TARGET,
    by_brightness,
    unet,
    volume_case,
)


def plainly(predictor, case):
    """Probabilities (slices, classes, height, width) window by window, nothing folded or shared."""
    numbers = normalise(case, predictor.input)
    slices = [network_slice(case, i, predictor.input, numbers) for i in range(case.slices)]
    found = []
    for index in range(case.slices):
        window = window_indices(
            case.slices, index, predictor.input.slices, predictor.input.edge, case.gaps
        )
        with torch.no_grad():
            x = torch.from_numpy(np.stack([slices[i] for i in window]))[None]
            logits = predictor.network(x).logits[0]
        exclusive = predictor.target.kind == "exclusive"
        maps = logits.softmax(0) if exclusive else logits.sigmoid()
        found.append(to_case_grid(maps.numpy(), case.size, predictor.input))
    return np.stack(found)


@pytest.mark.parametrize("context", [None, "mean", "conv", "sa-lstm"])
@pytest.mark.parametrize("target", [TARGET, BINARY, OVERLAPPING], ids=lambda t: t.kind)
def test_equals_window_by_window(context, target):
    predictor = unet(context, target=target)
    case = volume_case(gaps=(3,))
    found = predict(predictor, case, probabilities=True)
    expected = plainly(predictor, case)
    assert found.probabilities.shape == (5, target.classes, 18, 14)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(found.labels, decide(found.probabilities, target))
    assert expected.std(axis=(0, 2, 3)).max() > 1e-4, "the outputs of the network differ"
    without = predict(predictor, case)
    assert without.probabilities is None
    np.testing.assert_array_equal(without.labels, found.labels)


@pytest.mark.parametrize("at", ["encoder", "skips", "decoder", "output", "network.bottom"])
def test_every_position_is_folded_without_a_change(at):
    if at == "network.bottom":
        inner = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
        woven = weave(inner, "mean", at="1", channels=4, classes=3)
        inner[1].running_mean.uniform_(-1, 1)
        predictor = Predictor(woven.eval(), SPEC, TARGET)
    else:
        predictor = unet("mean", at=at)
    case = volume_case(slices=3)
    np.testing.assert_allclose(
        predict(predictor, case, probabilities=True).probabilities,
        plainly(predictor, case),
        atol=1e-5,
    )


def test_each_slice_runs_once_and_few_are_held():
    predictor = unet("conv")
    runs = []
    first = next(m for m in predictor.network.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda *_: runs.append(1))
    predict(predictor, volume_case(slices=6))
    assert len(runs) == 6


def test_a_plain_module_with_logits_is_enough():
    case = volume_case(height=16, width=16)
    found = predict(by_brightness((16, 16)), case)
    values = (case.image[:, 0] - case.image.mean()) / case.image.std()
    np.testing.assert_array_equal(found.labels, np.where(values > 0.5, 2, values > 0))


def test_modes_and_denormals_are_restored():
    predictor = unet("conv")
    predictor.network.train()
    frozen = next(m for m in predictor.network.modules() if isinstance(m, nn.BatchNorm2d))
    frozen.eval()
    before = {k: v.clone() for k, v in predictor.network.state_dict().items()}
    for _ in predictor.session().network_probabilities(volume_case()):
        assert not torch.is_inference_mode_enabled()
        assert not denormals_are_flushed()
    predict(predictor, volume_case())
    assert predictor.network.training
    assert not frozen.training
    assert sum(not m.training for m in predictor.network.modules()) == 1
    after = predictor.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in after), "no statistics were moved"
    assert not denormals_are_flushed()


def test_a_failure_leaves_modes_as_they_were():
    predictor = unet("conv")
    predictor.network.train()
    with pytest.raises(InputError, match="expected: 1"):
        predict(predictor, volume_case(channels=2))
    assert predictor.network.training


def test_a_session_predicts_many_cases_with_one_copy_of_the_network():
    predictor = unet("mean")
    session = predictor.session()
    for case in (volume_case(slices=2), volume_case(slices=1), volume_case(slices=2)):
        found = session.predict(case, probabilities=True)
        alone = predict(predictor, case, probabilities=True)
        np.testing.assert_array_equal(found.probabilities, alone.probabilities)
    # What happens to the predictor's network later does not reach the session.
    with torch.no_grad():
        for parameter in predictor.network.parameters():
            parameter.zero_()
    again = session.predict(case, probabilities=True)
    np.testing.assert_array_equal(again.probabilities, found.probabilities)


def submodule_predictor():
    """A plain network, woven at the name of one of its layers."""
    inner = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1)
    )
    return Predictor(weave(inner, "mean", at="1", channels=4, classes=3).eval(), SPEC, TARGET)


@pytest.mark.parametrize("at", ["bottleneck", "skips", "output", "a dotted name"])
def test_a_session_serves_several_threads(at):
    if at == "a dotted name":
        predictors = submodule_predictor(), submodule_predictor()
    else:
        predictors = unet("sa-lstm", at=at), unet("mean", at=at)
    session = Ensemble(predictors, flips="rows").session()
    generator = np.random.default_rng(0)
    cases = [
        replace(case, image=generator.normal(100, 20, case.image.shape).astype(np.float32))
        for case in [volume_case(slices=4)] * 12
    ]
    alone = [session.predict(case, probabilities=True).probabilities for case in cases]
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda case: session.predict(case, probabilities=True), cases * 2)
        together = [prediction.probabilities for prediction in done]
    for found, expected in zip(together, alone * 2, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len({maps.tobytes() for maps in alone}) == len(cases)


class Reader(nn.Module):
    """Reads its earlier mask: the logit grows with the image and with the mask around a pixel."""

    def __init__(self, rounds):
        super().__init__()
        self.in_channels, self.classes = 1, 1
        self.feedback = Feedback("mask", lambda image: (image > 1).to(image.dtype), rounds)
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x, **inputs):
        around = nn.functional.avg_pool2d(inputs["mask"], 3, stride=1, padding=1)
        return x + self.weight * around - 1


@pytest.mark.parametrize("flips", ["none", "rows"])
@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("context", ["identity", "mean"])
def test_a_network_with_feedback_runs_its_rounds_over_the_case(context, rounds, flips):
    woven = weave(Reader(rounds), context, at="output", slices=3, classes=1, channels=1).eval()
    predictor = Predictor(woven, SPEC, BINARY)
    case = volume_case(slices=4, height=16, width=16)
    numbers = normalise(case, SPEC)
    images = torch.from_numpy(np.stack([network_slice(case, i, SPEC, numbers) for i in range(4)]))
    views = [images, images.flip(-1)] if flips == "rows" else [images]
    means = []
    for view in views:
        masks = (view > 1).float()
        for _ in range(rounds):
            around = nn.functional.avg_pool2d(masks, 3, stride=1, padding=1)
            alone = view + 2 * around - 1
            logits = alone
            if context == "mean":
                windows = [window_indices(4, i, 3) for i in range(4)]
                logits = alone + torch.stack([alone[w].mean(0) for w in windows])
            masks = (logits > 0).float()
        means.append(logits.sigmoid())
    expected = means[0] if flips == "none" else (means[0] + means[1].flip(-1)) / 2
    found = predict(Ensemble((predictor,), flips=flips), case, probabilities=True)
    np.testing.assert_allclose(found.probabilities, expected.detach().numpy(), atol=1e-5)


def test_progress_counts_slices():
    seen = []
    session = unet("mean").session()
    session.predict(volume_case(slices=3), progress=lambda *call: seen.append(call))
    assert seen == [(1, 3, "case"), (2, 3, "case"), (3, 3, "case")]


def test_one_slice_repeats_itself():
    predictor = unet("conv")
    assert predict(predictor, volume_case(slices=1)).labels.shape == (1, 18, 14)


def test_maps_of_the_network_grid():
    maps = list(unet("mean").session().network_probabilities(volume_case(slices=2)))
    assert [m.shape for m in maps] == [(3, 16, 16)] * 2
    np.testing.assert_allclose(maps[0].sum(0), 1, atol=1e-5)


def test_a_wrong_number_of_classes_is_named():
    predictor = replace(unet("mean"), target=TargetSpec(names=("a", "b")))
    with pytest.raises(UsageError, match=r"2 channels.*\n.*3 channels"):
        predict(predictor, volume_case())


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    predictor, case = unet("sa-lstm"), volume_case()
    expected = predict(predictor, case, probabilities=True).probabilities
    predictor.network.cuda()
    found = predict(predictor, case, probabilities=True).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_bfloat16_gives_nearly_the_same():
    predictor = unet("sa-lstm")
    case = volume_case()
    exact = predict(predictor, case, probabilities=True)
    rough = predict(replace(predictor, precision="bf16"), case, probabilities=True)
    assert rough.probabilities.dtype == np.float32
    np.testing.assert_allclose(rough.probabilities, exact.probabilities, atol=0.03)
    assert (rough.probabilities != exact.probabilities).any()


@pytest.mark.parametrize("given", ["runs/a", None, nn.Identity()], ids=["path", "none", "network"])
def test_predict_asks_for_what_load_returns(given: Any) -> None:
    with pytest.raises(UsageError, match=r"segweave\.load") as caught:
        predict(given, np.zeros((1, 1, 16, 16)))
    assert "Predictor(network, input, target)" in str(caught.value)
