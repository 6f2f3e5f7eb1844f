"""The two protocols: reference numbers, then each rule on a case by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom

from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.evaluation import Score, get_protocol, nearest_zoom, published, score_case

REFERENCE = Path(__file__).parent.parent / "reference"
CASES = json.loads((REFERENCE / "protocol_cases.json").read_text())
TARGET = TargetSpec(names=("background", "one", "two", "three"))
BINARY = TargetSpec(kind="binary", names=("background", "polyp"))


def by_metric(scores: list[Score], metric: str) -> list[Any]:
    return [score.value for score in scores if score.metric == metric]


def only(scores: list[Score], metric: str, name: str | None = None) -> Score:
    found = [s for s in scores if s.metric == metric and (name is None or s.class_name == name)]
    assert len(found) == 1
    return found[0]


def score(prediction: Any, reference: Any, **options: Any) -> list[Score]:
    settings_ = {"target": TARGET, "spacing": None, "stack": "space", **options}
    return score_case(np.asarray(prediction), np.asarray(reference), **settings_)


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_published_equals_the_reference_scores(case: dict[str, Any]) -> None:
    with np.load(REFERENCE / "protocol_cases.npz") as held:
        network, label, prediction = (
            held[f"{case['index']}.{name}"] for name in ("network", "label", "prediction")
        )
    brought_back = nearest_zoom(network, label.shape[1:])
    scored = slice(1, -1)
    np.testing.assert_array_equal(brought_back[scored], prediction[scored])
    scores = score(brought_back, label, protocol="published", spacing=(10.0, 1.5, 1.5))
    assert by_metric(scores, "dice") == case["dice"]
    assert by_metric(scores, "hd95") == case["hd95"]
    assert np.mean(by_metric(scores, "dice")) == pytest.approx(case["mean_dice"], abs=1e-15)
    assert np.mean(by_metric(scores, "hd95")) == pytest.approx(case["mean_hd95"], abs=1e-15)
    asked = [list(w) for w in case["slices_asked_for"]]
    assert [w[1] for w in asked] == list(published.needs.slices(len(label)))
    assert {s.unit for s in scores if s.metric == "hd95"} == {"px"}


def test_published_marks_values_that_are_set_by_rule() -> None:
    label = np.zeros((4, 6, 6), np.uint8)
    label[1:3, 1:4, 1:4] = 1
    prediction = label.copy()
    prediction[1:3, 5, 5] = 2
    scores = score(prediction, label, protocol="published", only=["dice"])
    found = {s.class_name: (s.value, s.status) for s in scores}
    assert found == {"one": (1, "scored"), "two": (1, "rule"), "three": (0, "rule")}


def test_published_is_refused_for_what_it_does_not_know() -> None:
    frames = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(UsageError, match="use one of clean"):
        score(frames, frames, target=BINARY, stack="time", protocol="published")


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_nearest_zoom_is_that_of_scipy(h: int, w: int, height: int, width: int) -> None:
    labels = np.random.default_rng(h * 41 + w).integers(1, 5, (h, w)).astype(np.uint8)
    there = zoom(labels, (height / h, width / w), order=0)
    np.testing.assert_array_equal(nearest_zoom(labels, (height, width)), there)


@pytest.mark.parametrize(("n", "m"), [(8, 6), (224, 256), (224, 232), (256, 224), (128, 130)])
def test_nearest_zoom_takes_the_stated_index(n: int, m: int) -> None:
    column = np.arange(n)[:, None]
    index = np.floor(np.arange(m) * (n - 1) / (m - 1) + 0.5)
    np.testing.assert_array_equal(nearest_zoom(column, (m, 1))[:, 0], index)


def test_nearest_zoom_keeps_the_background_that_scipy_puts_in_the_last_row() -> None:
    ones = np.ones((224, 224), np.uint8)
    there = zoom(ones, 216 / 224, order=0)
    np.testing.assert_array_equal(nearest_zoom(ones, (216, 216)), there)


def volume() -> np.ndarray:
    label = np.zeros((4, 12, 12), np.uint8)
    label[0:3, 2:7, 2:7] = 1
    return label


def test_clean_scores_every_slice() -> None:
    label = volume()
    prediction = label.copy()
    prediction[0] = 0
    assert only(score(prediction, label), "dice").value == pytest.approx(2 * 50 / (50 + 75))


def test_clean_absent_class_has_no_dice_and_no_distance() -> None:
    scores = score(volume(), volume())
    assert {s.metric for s in scores if s.class_name == "two"} == {"false-alarm"}
    alarm = only(scores, "false-alarm", "two")
    assert (alarm.value, alarm.unit, alarm.status) == (0, "px", "scored")
    assert not [s for s in scores if s.metric == "false-alarm" and s.class_name == "one"]


@pytest.mark.parametrize(("spacing", "amount", "unit"), [(None, 8, "px"), ((10, 2, 2), 0.32, "ml")])
def test_clean_counts_a_false_alarm(spacing: Any, amount: float, unit: str) -> None:
    prediction = volume()
    prediction[0:2, 9:11, 9:11] = 2
    scores = score(prediction, volume(), spacing=spacing)
    alarm = only(scores, "false-alarm", "two")
    assert (alarm.value, alarm.unit) == (pytest.approx(amount), unit)
    assert only(scores, "dice").value == 1  # of class one alone
    assert {s.metric for s in scores if s.class_name == "two"} == {"false-alarm"}


def test_clean_missed_class_scores_zero_and_its_distance_fails() -> None:
    scores = score(np.zeros_like(volume()), volume(), spacing=(8, 1, 1))
    for metric in ("dice", "iou", "precision", "sensitivity"):
        assert only(scores, metric).value == 0
    for metric in ("hd", "hd95", "asd", "asd-reverse", "assd"):
        failed = only(scores, metric)
        assert (failed.value, failed.status, failed.unit) == (None, "failed", "mm")


def test_clean_distances_in_mm_or_px() -> None:
    prediction = np.roll(volume(), 1, axis=0)
    in_mm = only(score(prediction, volume(), spacing=(8, 0.5, 0.5)), "hd")
    assert (in_mm.value, in_mm.unit) == (8, "mm")
    in_px = only(score(prediction, volume()), "hd")
    assert (in_px.value, in_px.unit) == (1, "px")


def test_clean_hd95_is_the_larger_directed_percentile() -> None:
    label = np.zeros((1, 1, 40), np.uint8)
    label[..., :20] = 1
    prediction = label.copy()
    prediction[..., 30] = 1  # 1 of 21 surface voxels is 11 away, all of the other are 0 away
    value = only(score(prediction, label), "hd95").value
    assert value == pytest.approx(np.percentile([0] * 20 + [11], 95))
    pooled = only(score_published_like(prediction, label), "hd95").value
    assert pooled == np.percentile([0] * 40 + [11], 95) == 0


def score_published_like(prediction: np.ndarray, label: np.ndarray) -> list[Score]:
    ends = [np.zeros_like(label), np.zeros_like(label)]
    whole = [np.concatenate([ends[0], a, ends[1]]) for a in (prediction, label)]
    target = TargetSpec(names=("background", "one"))
    return score(*whole, target=target, protocol="published")


@pytest.mark.parametrize("stack", ["time", "single"])
def test_clean_scores_frames_one_by_one(stack: str) -> None:
    label = np.zeros((3 if stack == "time" else 1, 10, 10), np.uint8)
    label[0, 2:6, 2:6] = 1
    prediction = label.copy()
    prediction[0, 2:6, 4:6] = 0
    prediction[1:, 0, :5] = 1
    scores = score(prediction, label, target=BINARY, stack=stack, spacing=(1.0, 0.5, 0.5))
    assert [(s.slice, s.value) for s in scores if s.metric == "dice"] == [(0, 2 * 8 / 24)]
    assert [(s.slice, s.value) for s in scores if s.metric == "hd"] == [(0, 1.0)]
    alarms = [(s.slice, s.value, s.unit) for s in scores if s.metric == "false-alarm"]
    assert alarms == ([(1, 5, "px"), (2, 5, "px")] if stack == "time" else [])


def test_a_volume_is_not_the_mean_of_its_slices() -> None:
    label = np.zeros((2, 10, 10), np.uint8)
    label[0, :8], label[1, :1] = 1, 1
    prediction = label.copy()
    prediction[1] = 0
    as_volume = by_metric(score(prediction, label, target=BINARY), "dice")
    as_frames = by_metric(score(prediction, label, target=BINARY, stack="time"), "dice")
    assert as_volume == [pytest.approx(160 / 170)]
    assert as_frames == [1, 0]


def test_overlapping_classes_are_scored_each_for_itself() -> None:
    target = TargetSpec(kind="overlapping", names=("whole", "core"))
    label = np.zeros((2, 2, 8, 8), np.uint8)
    label[:, 0, 1:7, 1:7], label[:, 1, 2:4, 2:4] = 1, 1
    prediction = label.copy()
    prediction[:, 1] = 0
    scores = score(prediction, label, target=target)
    assert only(scores, "dice", "whole").value == 1
    assert only(scores, "dice", "core").value == 0


def test_ignored_pixels_do_not_count() -> None:
    target = TargetSpec(names=("background", "one"), ignored=255)
    label = np.zeros((1, 6, 6), np.uint8)
    label[0, :3], label[0, 5] = 1, 255
    prediction = np.zeros_like(label)
    prediction[0, :3], prediction[0, 5] = 1, 1
    assert only(score(prediction, label, target=target), "dice").value == 1


def test_wrong_input() -> None:
    label = volume()
    with pytest.raises(InputError, match=r"reference.s shape"):
        score(label[:3], label)
    with pytest.raises(InputError, match="unknown class ids in the prediction") as caught:
        score(label * 4, label)
    assert "4" in (caught.value.found or "")
    with pytest.raises(InputError, match="not a label map"):
        score(label.astype(float), label)
    with pytest.raises(UsageError, match="spacing"):
        score(label, label, spacing=(1.0, 1.0))
    with pytest.raises(UsageError, match="dice"):
        score(label, label, only=["dise"])
    with pytest.raises(UsageError, match="published"):
        get_protocol("publisht")
