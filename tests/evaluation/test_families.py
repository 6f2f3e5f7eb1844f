"""The protocols of the families, each rule on a case worked out by hand; where a rule comes from
is in the protocol's `sources`.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.evaluation import (
    Score,
    evaluate_cases,
    evaluate_folders,
    get_protocol,
    list_protocols,
    read_evaluation,
    score_case,
    summarise,
    summary_table,
)
from segweave.evaluation.families.lesions import resized_mask
from segweave.evaluation.families.polyps import saved_map
from segweave.workflow.evaluate import keep, predict_for

ORGANS = TargetSpec(names=("background", "spleen", "liver", "aorta", "stomach"))
POLYP = TargetSpec(kind="binary", names=("background", "polyp"))


def values(scores: list[Score]) -> dict[tuple[str, str], float | None]:
    return {(s.class_name, s.metric): s.value for s in scores}


def score(protocol: str, prediction: Any, reference: Any, **options: Any) -> list[Score]:
    given = {"target": POLYP, "spacing": None, "stack": "single", **options}
    return score_case(np.asarray(prediction), np.asarray(reference), protocol=protocol, **given)


# All of them


def test_published_is_chosen_by_the_data_set() -> None:
    for dataset, name in (
        ("acdc", "published"),
        ("synapse", "published-synapse"),
        ("cvc-clinicdb", "published-polyps"),
        ("kvasir-seg", "published-polyps"),
        ("isic2018", "published-isic"),
        ("glas", "published-glas"),
        ("someone-elses", "published"),
    ):
        assert get_protocol("published", dataset).name == name
    assert get_protocol("clean", "glas").name == "clean"
    with pytest.raises(UsageError, match="published-polyps"):
        get_protocol("published-polyp")


@pytest.mark.parametrize(
    "name", sorted(n for n, one in list_protocols().items() if one.task == "labels")
)
def test_every_protocol_computes_what_it_defines(name: str) -> None:
    protocol = get_protocol(name)
    target = protocol.target or TargetSpec(names=("background", "one"))
    label = np.zeros((3, 16, 16), np.uint8)
    label[:, 2:9, 3:11] = 1
    stack = protocol.stacks[-1]
    label = label[:1] if stack == "single" else label
    scores = score(name, label, label, target=target, stack=stack)
    computed = {s.metric for s in scores}
    assert computed == set(protocol.definitions) - {"false-alarm"}
    assert set(protocol.columns) <= set(protocol.definitions)
    assert protocol.sources or not name.startswith("published")
    for metric in protocol.definitions:
        only = score(name, label, label, target=target, stack=stack, only=[metric])
        assert {s.metric for s in only} <= {metric}
    assert {s.value for s in scores if s.metric == "dice"} == {1}


@pytest.mark.parametrize("name", ["published-polyps", "published-isic", "published-glas"])
def test_images_alone_and_one_class_alone(name: str) -> None:
    label = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(UsageError, match="use one of clean"):
        score(name, label, label, stack="space")
    with pytest.raises(UsageError, match="one class"):
        score(name, label, label, target=ORGANS, stack="time")


# Synapse, as TransUNet


def test_synapse_scores_all_slices_by_the_rules_of_transunet() -> None:
    reference = np.zeros((4, 8, 8), np.uint8)
    reference[0, 1:3, 1:5] = 1  # in the first slice alone: ACDC's rules would not see it
    reference[1:3, 5:7, 5:7] = 2
    prediction = np.zeros_like(reference)
    prediction[0, 1:3, 1:4] = 1
    prediction[3, 0, 0] = 3
    scores = score("published-synapse", prediction, reference, target=ORGANS, stack="space")
    found = values(scores)
    assert found["spleen", "dice"] == pytest.approx(2 * 6 / 14)
    # Borders are all voxels: 12 of distance 0, 2 of distance 1; between ranks 12 and 13 of 13.
    assert found["spleen", "hd95"] == pytest.approx(np.percentile([0] * 12 + [1, 1], 95))
    assert (found["liver", "dice"], found["liver", "hd95"]) == (0, 0)  # missed
    assert (found["aorta", "dice"], found["aorta", "hd95"]) == (1, 0)  # a false alarm
    assert (found["stomach", "dice"], found["stomach", "hd95"]) == (0, 0)  # in neither
    assert {s.class_name: s.status for s in scores} == {
        "spleen": "scored",
        "liver": "rule",
        "aorta": "rule",
        "stomach": "rule",
    }
    with_spacing = score(
        "published-synapse", prediction, reference, target=ORGANS, stack="space", spacing=(5, 1, 1)
    )
    assert values(with_spacing) == found  # in voxels, whatever the spacing
    assert {s.unit for s in with_spacing if s.metric == "hd95"} == {"px"}


# Polyps, as PraNet


def test_a_binary_polyp_map_scores_the_known_formula() -> None:
    # 20 of 100 pixels true, 15 of 20 marked ones right: Dice 3/4, IoU 3/5, share g = 1/5.
    reference = np.zeros((1, 10, 10), np.uint8)
    reference[0, 2:6, 2:7] = 1
    prediction = np.zeros_like(reference)
    prediction[0, 3:7, 2:7] = 1
    found = values(score("published-polyps", prediction, reference))
    assert found["polyp", "dice"] == 0.75
    assert found["polyp", "dice-256"] == pytest.approx((255 * 0.75 + 2 * 0.2 / 1.2) / 256)
    assert found["polyp", "iou-256"] == pytest.approx((255 * 0.6 + 0.2) / 256)
    assert found["polyp", "mae"] == pytest.approx(10 / 100)
    assert found["polyp", "sensitivity-256"] == pytest.approx((255 * 0.75 + 1) / 256)
    assert found["polyp", "specificity-256"] == pytest.approx(255 * (75 / 80) / 256)


def test_a_soft_polyp_map_is_stretched_first() -> None:
    # Values 51, 102, 153 become 0, 1/2, 1: thresholds 128..255 keep one pixel, 1..127 two, 0 all.
    soft_map = np.array([[[51, 102, 153, 51]]], np.uint8)
    reference = np.array([[[0, 0, 1, 0]]], np.uint8)
    found = values(score("published-polyps", soft_map, reference))
    assert found["polyp", "dice-256"] == pytest.approx((128 * 1 + 127 * 2 / 3 + 2 / 5) / 256)
    assert found["polyp", "mae"] == pytest.approx(0.5 / 4)
    assert found["polyp", "dice"] == 1
    floats = score("published-polyps", soft_map / 255, reference)
    assert values(floats) == pytest.approx(found)


def test_a_polyp_image_without_a_polyp_scores_zero_by_rule() -> None:
    empty = np.zeros((1, 6, 6), np.uint8)
    scores = score("published-polyps", empty, empty)
    found = values(scores)
    assert found["polyp", "dice-256"] == found["polyp", "weighted-f"] == 0
    assert found["polyp", "s-measure"] == 1
    assert {s.status for s in scores} == {"rule"}


def test_the_saved_map_is_that_of_the_released_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn((1, 1, 8, 9), generator=generator)
    for size in ((21, 13), (6, 20)):
        large = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        wanted = large.sigmoid()[0, 0].double().numpy()
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min() + 1e-8) * 255
        found = saved_map(logits.sigmoid()[0, 0].numpy(), size)
        assert found.dtype == np.uint8
        assert np.abs(found - wanted).max() <= 0.5 + 1e-3
    assert saved_map(np.full((4, 4), 0.3), (8, 8)).tolist() == [[0] * 8] * 8


def test_the_largest_over_thresholds_is_that_of_the_mean_curve(tmp_path: Path) -> None:
    # Alone, each image has a threshold at which its Dice is 1; together no threshold serves both.
    reference = np.array([[[1, 0, 0, 0]]], np.uint8)
    low = np.array([[[100, 50, 0, 255]]], np.uint8)  # never perfect: a brighter false pixel
    high = np.array([[[255, 200, 0, 0]]], np.uint8)  # perfect above 200
    pairs = [
        (Case(f"{k}", f"{k}", reference[:, None], label=reference), m)
        for k, m in enumerate((low, high))
    ]
    evaluation = evaluate_cases(
        pairs, tmp_path / "scores", target=POLYP, protocol="published-polyps"
    )
    rows = [
        r for r in read_evaluation(tmp_path / "scores").rows if r.score.metric == "dice-256-max"
    ]
    # low: 51..100 → 2/3, 101.. → 0; high: 1..200 → 2/3, above → 1. Best together: 51..100.
    assert [row.score.value for row in rows] == pytest.approx([2 / 3, 2 / 3])
    assert summarise([evaluation])[0].macro.overlaps["dice-256-max"].mean == pytest.approx(2 / 3)
    alone = [values(score("published-polyps", m, reference)) for m in (low, high)]
    assert [a["polyp", "dice-256-max"] for a in alone] == pytest.approx([2 / 3, 1])


def test_every_image_weighs_alike_whatever_its_video(tmp_path: Path) -> None:
    reference = np.zeros((3, 8, 8), np.uint8)
    reference[:, 2:6, 2:6] = 1
    prediction = reference.copy()
    prediction[0] = np.roll(reference[0], 4, axis=1)  # Dice 0 in the video of one frame
    videos = [
        (Case("a", "a", reference[:1, None], label=reference[:1], stack="time"), prediction[:1]),
        (Case("b", "b", reference[:, None], label=reference, stack="time"), reference),
    ]
    for protocol, mean in (("clean", (0 + 1) / 2), ("published-polyps", (0 + 3) / 4)):
        evaluation = evaluate_cases(videos, tmp_path / protocol, target=POLYP, protocol=protocol)
        summary = summarise([evaluation])[0]
        assert summary.macro.overlaps["dice"].mean == pytest.approx(mean)
        assert summary.macro.overlaps["dice"].groups == 2


def test_folders_of_soft_maps_are_scored_without_naming_classes(tmp_path: Path) -> None:
    reference = np.zeros((12, 10), np.uint8)
    reference[3:8, 2:7] = 255
    for folder, image in (("maps", reference // 2 + 20), ("masks", reference)):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "1.png")
    evaluation = evaluate_folders(
        tmp_path / "maps", tmp_path / "masks", tmp_path / "out", protocol="published-polyps"
    )
    table = summary_table([evaluation]).markdown()
    for column in ("dice-256", "s-measure", "weighted-f", "e-measure-max"):
        assert column in table
    assert evaluation.manifest.classes == ["polyp"]
    assert evaluation.manifest.per == "image"


# Skin lesions, as DCSAU-Net


def test_lesions_are_scored_at_the_networks_size() -> None:
    # 4 × 6 brought to 2 × 3 by the first pixel of each block: the mask keeps columns 0 and 2.
    reference = np.zeros((1, 4, 6), np.uint8)
    reference[0, :, 0], reference[0, 2:, 2], reference[0, :, 5] = 1, 1, 1
    small = np.array([[[1, 0, 0], [1, 1, 0]]], np.uint8)
    np.testing.assert_array_equal(resized_mask(reference, (2, 3)), small)
    prediction = np.array([[[1, 1, 0], [0, 1, 0]]], np.uint8)  # TP 2, FP 1, FN 1, TN 2
    found = values(score("published-isic", prediction, reference))
    assert found["polyp", "dice"] == pytest.approx((2 * 2 + 1) / (3 + 3 + 1))
    assert found["polyp", "iou"] == pytest.approx((2 + 1) / (4 + 1))
    assert found["polyp", "sensitivity"] == found["polyp", "precision"] == pytest.approx(2 / 3)
    assert found["polyp", "specificity"] == found["polyp", "accuracy"] == pytest.approx(4 / 6)


def test_the_lesion_threshold_is_a_half_at_the_networks_size() -> None:
    probabilities = np.array([[[0.5, 0.49], [0.51, 0.0]]])
    labels = get_protocol("published-isic").from_network(probabilities, (9, 9), POLYP)
    assert labels.tolist() == [[1, 0], [1, 0]]


def test_a_run_is_scored_at_the_networks_size_and_kept_at_the_cases(
    tmp_path: Path,
) -> None:
    small = np.zeros((1, 4, 4), np.float32)
    small[0, 1:3, 1:3] = 0.9
    case = Case("a/b", "a", np.zeros((1, 3, 9, 8), np.uint8), label=np.zeros((1, 9, 8), np.uint8))
    session = SimpleNamespace(
        target=POLYP, prompt="", network_probabilities=lambda case, boxes: iter([small])
    )
    for name, shape in (("published-isic", (1, 4, 4)), ("published-polyps", (1, 9, 8))):
        found, _ = predict_for(session, case, get_protocol(name))  # type: ignore[arg-type]
        assert found.shape == shape
        (tmp_path / name).mkdir()
        keep(found, case, tmp_path / name)
        (kept,) = (tmp_path / name).iterdir()
        assert np.asarray(Image.open(kept)).shape == (9, 8)


def test_nothing_predicted_of_a_lesion() -> None:
    reference = np.ones((1, 2, 2), np.uint8)
    scores = score("published-isic", np.zeros_like(reference), reference)
    found = values(scores)
    assert found["polyp", "dice"] == found["polyp", "iou"] == pytest.approx(1 / 5)
    assert found["polyp", "precision"] == found["polyp", "sensitivity"] == 0
    assert {s.status for s in scores} == {"rule"}


# Glands, as the GlaS challenge


def test_glands_by_hand() -> None:
    instances = np.zeros((1, 8, 14), np.uint16)
    instances[0, 1:5, 1:5], instances[0, 1:5, 5:7] = 1, 2  # two glands that touch
    reference = (instances > 0).astype(np.uint8)
    prediction = reference.copy()
    found = values(score("published-glas", prediction, reference, instances=instances))
    # One predicted gland of 24 pixels, against 16 and 8: it takes the larger one.
    assert found["polyp", "object-dice"] == pytest.approx(
        (2 * 16 / 40 + (16 / 24 * 2 * 16 / 40 + 8 / 24 * 2 * 8 / 32)) / 2
    )
    assert found["polyp", "object-f1"] == pytest.approx(2 / 3)
    assert found["polyp", "object-hd"] == pytest.approx((2 + 16 / 24 * 2 + 8 / 24 * 4) / 2)
    assert found["polyp", "dice"] == found["polyp", "iou"] == 1
    # Without the instances the touching glands are one object.
    alone = values(score("published-glas", prediction, reference))
    assert alone["polyp", "object-dice"] == 1
    # A prediction with ids keeps its objects apart.
    own = score("published-glas", instances.astype(np.uint8), reference, instances=instances)
    assert values(own)["polyp", "object-dice"] == values(own)["polyp", "object-f1"] == 1


def test_glands_on_no_or_one_side() -> None:
    empty, some = np.zeros((1, 6, 6), np.uint8), np.zeros((1, 6, 6), np.uint8)
    some[0, 1:4, 1:4] = 1
    both = score("published-glas", empty, empty)
    assert {(s.metric, s.value, s.status) for s in both} == {
        ("object-dice", 1, "rule"),
        ("object-f1", 1, "rule"),
        ("object-hd", 0, "rule"),
        ("dice", 1, "rule"),
        ("iou", 1, "rule"),
    }
    for pair in ((empty, some), (some, empty)):
        found = {s.metric: (s.value, s.status) for s in score("published-glas", *pair)}
        assert found["object-hd"] == (None, "failed")
        assert found["object-dice"] == found["dice"] == (0, "rule")


def test_glas_folders_of_instance_maps(tmp_path: Path) -> None:
    instances = np.zeros((9, 9), np.uint8)
    instances[1:4, 1:4], instances[5:8, 2:8] = 1, 2
    for folder, image in (("predicted", (instances > 0) * np.uint8(255)), ("true", instances)):
        (tmp_path / folder).mkdir()
        ending = "_anno" if folder == "true" else ""
        Image.fromarray(image).save(tmp_path / folder / f"testA_1{ending}.png")
    evaluation = evaluate_folders(
        tmp_path / "predicted", tmp_path / "true", tmp_path / "out", protocol="published-glas"
    )
    assert {row.score.value for row in evaluation.rows} == {0, 1}
    table = summary_table([evaluation]).markdown()
    assert "object-dice" in table
    assert "object HD px" in table


# Penalised


def test_penalised_counts_every_class() -> None:
    reference = np.zeros((3, 5, 7), np.uint8)
    reference[1, 1:3, 1:3] = 1
    prediction = np.zeros_like(reference)
    prediction[0, 0, 0] = 2
    spacing = (3.0, 1.0, 2.0)
    longest = math.sqrt(6**2 + 4**2 + 12**2)
    scores = score(
        "penalised", prediction, reference, target=ORGANS, stack="space", spacing=spacing
    )
    found = values(scores)
    for name, overlap, distance in (("spleen", 0, longest), ("liver", 0, longest), ("aorta", 1, 0)):
        assert found[name, "dice"] == found[name, "iou"] == overlap
        assert found[name, "hd95"] == found[name, "assd"] == pytest.approx(distance)
    assert {s.status for s in scores} == {"rule"}
    assert {s.unit for s in scores if s.metric == "hd"} == {"mm"}
    same = values(score("penalised", reference, reference, target=ORGANS, stack="space"))
    assert same["spleen", "dice"] == 1
    assert same["spleen", "hd"] == 0


def test_maps_of_wrong_kind_are_refused() -> None:
    label = np.zeros((1, 6, 6), np.uint8)
    with pytest.raises(InputError, match="8 bits"):
        score("published-polyps", label.astype(np.int64), label)
    with pytest.raises(InputError, match="0 to 1"):
        score("published-polyps", label + 2.5, label)
    with pytest.raises(InputError, match="ids"):
        score("published-glas", label + 0.5, label)


def test_what_polyps_are_scored_by_is_shown_as_labels() -> None:
    polyps, soft = get_protocol("published-polyps"), np.array([[[0, 40, 200], [250, 90, 0]]], "u1")
    assert polyps.shown(soft).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    hard = (soft > 100).astype(np.uint8)
    assert polyps.shown(hard).tolist() == hard.tolist()
    assert get_protocol("clean").shown(soft) is soft


def test_lesions_in_files_of_the_networks_size(tmp_path: Path) -> None:
    large = np.zeros((32, 48), np.uint8)
    large[8:24, 10:30] = 255
    for folder, picture in (("p", large[::2, ::2]), ("r", large)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    folders = tmp_path / "p", tmp_path / "r"
    found = evaluate_folders(*folders, tmp_path / "out", protocol="published-isic")
    assert values([row.score for row in found.rows])["lesion", "dice"] == 1
    with pytest.raises(InputError, match="size"):
        evaluate_folders(*folders, tmp_path / "clean", protocol="clean")


def test_a_protocol_for_other_cases_names_those_that_fit() -> None:
    with pytest.raises(UsageError, match="published-polyps"):
        score("published", np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8))
