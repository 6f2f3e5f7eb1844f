"""Any registered metric is scored beside a protocol's own, a plug-in's too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segweave import registry
from segweave.data.case import Case
from segweave.data.specs import TargetSpec, decide
from segweave.errors import InputError, UsageError
from segweave.evaluation import (
    Score,
    Scored,
    evaluate_cases,
    evaluate_folders,
    list_protocols,
    needs_probabilities,
    read_evaluation,
    score_case,
    summarise,
    summary_table,
)
from segweave.evaluation.summary import by_unit
from segweave.metrics import compute_metric

CARDS = registry.metrics.cards()
OF_LABELS = [name for name, card in CARDS.items() if card.reads in ("labels", "instances")]
OF_MODELS = [name for name, card in CARDS.items() if card.reads in ("soft-map", "probabilities")]
OF_IMAGES = [name for name, card in CARDS.items() if card.reads == "images"]
TARGET = TargetSpec(names=("background", "one", "two"))
SPACING = (8.0, 1.5, 1.5)
PLUGIN = '''
"""Relative volume difference."""

from segweave.registry import MetricCard

CARD = MetricCard(
    name="{name}",
    title="Volume error, a plug-in's",
    entry="volume_error",
    spacing=True,
    unit="ml",
    better="lower",
    label="volume error",
)


def volume_error(prediction, reference, spacing):
    voxel = 1.0 if spacing is None else spacing[0] * spacing[1] * spacing[2] / 1000
    return voxel * abs(float((prediction != 0).sum()) - float((reference != 0).sum()))
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    name = "volume-error"
    file = tmp_path / "volume_error.py"
    file.write_text(PLUGIN.format(name=name))
    registry.register_plugin(file)
    yield name
    assert registry.metrics._cards is not None
    del registry.metrics._cards[name]
    registry.metrics._plugin_hashes.clear()


def a_case(id: str = "a", seed: int = 0) -> Scored:
    """A volume of two classes, the second one in a single slice, and what was predicted for it."""
    generator = np.random.default_rng(seed)
    label = np.zeros((3, 20, 16), np.uint8)
    label[:, 3:12, 2:11] = 1
    label[1, 14:18, 10:15] = 2
    probabilities = generator.random((3, 3, 20, 16)) + 2 * np.moveaxis(np.eye(3)[label], -1, 1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    image = np.zeros((3, 1, 20, 16), np.float32)
    case = Case(id, id, image, label, stack="space", spacing=SPACING)
    return Scored(case, decide(probabilities, TARGET), probabilities)


def of(scores: list[Score], metric: str) -> dict[tuple[str, int | None], float | None]:
    return {(s.class_name, s.slice): s.value for s in scores if s.metric == metric}


def scored(entry: Scored, **options: Any) -> list[Score]:
    assert entry.case.label is not None
    given = {
        "target": TARGET,
        "spacing": entry.case.spacing,
        "stack": entry.case.stack,
        "probabilities": entry.probabilities,
        **options,
    }
    return score_case(entry.prediction, entry.case.label, **given)


def test_every_card_belongs_to_one_group() -> None:
    assert sorted([*OF_LABELS, *OF_MODELS, *OF_IMAGES]) == sorted(CARDS)
    assert needs_probabilities(OF_MODELS)
    assert not needs_probabilities(OF_LABELS)


@pytest.mark.parametrize("name", sorted(list_protocols()))
def test_protocols_list_cards(name: str) -> None:
    protocol = list_protocols()[name]
    for metric in (*protocol.definitions, *protocol.computed_by.values()):
        assert metric in CARDS
    assert set(protocol.computed_by) <= set(protocol.definitions)


@pytest.mark.parametrize("name", [*OF_LABELS, *OF_MODELS])
def test_every_card_is_computed_beside_a_protocol(name: str, tmp_path: Path) -> None:
    entries = [a_case("a"), a_case("b", 1)]
    entry = entries[0]
    values = of(scored(entry, only=[name]), name)
    if not CARDS[name].absent:
        assert values
    evaluation = evaluate_cases(entries, tmp_path / "e", target=TARGET, metrics=[name])
    read = read_evaluation(tmp_path / "e")
    assert read == evaluation
    assert name in read.manifest.definitions
    assert read.manifest.metrics[name].better == CARDS[name].better
    (summary,) = summarise([read])
    assert (summary.cases, summary.images, summary.volumes, summary.frames) == (2, 2, 2, 0)
    if not CARDS[name].absent:
        rows = [row for row in read.rows if row.score.metric == name and row.case == "a"]
        assert of([row.score for row in rows], name) == values
        in_units = by_unit(read.manifest.metrics[name])
        held = summary.macro.distances if in_units else summary.macro.overlaps
        assert name in held
        header = " ".join(summary_table([read]).header)
        assert CARDS[name].heading in header


@pytest.mark.parametrize("name", [n for n in OF_LABELS if not CARDS[n].absent])
def test_a_metric_of_labels_is_that_of_each_class(name: str) -> None:
    entry = a_case()
    label = entry.case.label
    assert label is not None
    values = of(scored(entry, only=[name]), name)
    for c, class_name in TARGET.foreground.items():
        masks = (entry.prediction == c), (label == c)
        if CARDS[name].reads == "labels":
            wanted = compute_metric(name, *masks, spacing=SPACING)
            assert values[class_name, None] == pytest.approx(wanted)
        assert (class_name, None) in values


def test_soft_maps_are_scored_slice_by_slice_where_the_class_is() -> None:
    entry = a_case()
    label, probabilities = entry.case.label, entry.probabilities
    assert label is not None
    assert probabilities is not None
    values = of(scored(entry, only=["mae"]), "mae")
    assert set(values) == {("one", 0), ("one", 1), ("one", 2), ("two", 1)}
    wanted = compute_metric("mae", probabilities[1, 2], label[1] == 2)
    assert values["two", 1] == pytest.approx(wanted)


def test_calibration_is_of_all_classes_of_the_volume() -> None:
    entry = a_case()
    label = entry.case.label
    assert label is not None
    values = of(scored(entry, only=["brier"]), "brier")
    wanted = compute_metric("brier", entry.probabilities, label)
    assert values == {("", None): pytest.approx(wanted)}
    frames = of(scored(entry, only=["brier"], stack="time"), "brier")
    assert set(frames) == {("", 0), ("", 1), ("", 2)}
    assert np.mean(list(frames.values())) == pytest.approx(wanted)


def test_ignored_pixels_do_not_count_for_probabilities() -> None:
    target = TARGET.model_copy(update={"ignored": 255})
    entry = a_case()
    label = entry.case.label
    assert label is not None
    label[:, :2] = 255
    changed = entry.probabilities.copy()  # type: ignore[union-attr]
    changed[:, :, :2] = changed[:, ::-1, :2]
    for name in ("brier", "ece", "mae", "s-measure"):
        first, second = (
            of(scored(entry._replace(probabilities=p), only=[name], target=target), name)
            for p in (entry.probabilities, changed)
        )
        assert first == second


def test_overlapping_classes_have_a_calibration_each() -> None:
    target = TargetSpec(kind="overlapping", names=("whole", "core"))
    label = np.zeros((2, 2, 12, 12), np.uint8)
    label[:, 0, 2:10, 2:10], label[:, 1, 4:7, 4:7] = 1, 1
    probabilities = 0.1 + 0.8 * label
    for name in ("brier", "mae", "dice", "object-dice"):
        scores = score_case(
            label,
            label,
            target=target,
            spacing=None,
            stack="space",
            only=[name],
            probabilities=probabilities,
        )
        assert {s.class_name for s in scores} == {"whole", "core"}


def test_known_objects_are_those_of_the_case() -> None:
    target = TargetSpec(kind="binary", names=("background", "gland"))
    instances = np.zeros((1, 8, 14), np.uint16)
    instances[0, 1:5, 1:5], instances[0, 1:5, 5:7] = 1, 2  # two glands that touch
    mask = (instances > 0).astype(np.uint8)
    given: dict[str, Any] = {"target": target, "spacing": None, "stack": "single"}
    (alone,) = score_case(mask, mask, only=["object-f1"], **given)
    (known,) = score_case(mask, mask, only=["object-f1"], instances=instances, **given)
    assert (alone.value, known.value) == (1, pytest.approx(2 / 3))


def test_a_plug_in_metric_is_in_scores_summary_and_tables(plugin: str, tmp_path: Path) -> None:
    evaluation = evaluate_cases(
        [a_case("a"), a_case("b", 1)], tmp_path / "e", target=TARGET, metrics=[plugin], arm="unet"
    )
    rows = [row.score for row in evaluation.rows if row.score.metric == plugin]
    assert {(s.class_name, s.unit) for s in rows} == {("one", "ml"), ("two", "ml")}
    for row, label in ((rows[0], 1), (rows[1], 2)):
        entry = a_case("a")
        assert entry.case.label is not None
        voxels = abs(
            int((entry.prediction == label).sum()) - int((entry.case.label == label).sum())
        )
        assert row.value == pytest.approx(voxels * 8 * 1.5 * 1.5 / 1000)
    assert "volume-error,0." in (tmp_path / "e" / "cases.csv").read_text()
    assert '"volume-error"' in (tmp_path / "e" / "summary.json").read_text()
    table = summary_table([evaluation]).markdown()
    assert "| volume error ml, median / mean (failed) |" in table
    assert "Volume error, a plug-in's" in table
    assert "lower is better" in table
    assert "plug-in volume_error.py" in evaluation.manifest.versions


def test_a_folder_is_read_without_its_plug_in(plugin: str, tmp_path: Path) -> None:
    written = evaluate_cases([a_case()], tmp_path / "e", target=TARGET, metrics=[plugin])
    cards = registry.metrics._cards
    assert cards is not None
    held = cards.pop(plugin)
    try:
        read = read_evaluation(tmp_path / "e")
        assert read == written
        assert "| volume error ml, median" in summary_table([read]).markdown()
    finally:
        cards[plugin] = held


def test_label_files_are_scored_by_a_plug_in(plugin: str, tmp_path: Path) -> None:
    entry = a_case()
    assert entry.case.label is not None
    for folder, labels in (("p", entry.prediction), ("r", entry.case.label)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", label=labels)
    evaluation = evaluate_folders(
        tmp_path / "p", tmp_path / "r", tmp_path / "out", metrics=[plugin, "nsd"]
    )
    units = evaluation.manifest.units
    assert (units[plugin], units["nsd"]) == (["px"], [""])
    header = summary_table([evaluation]).header
    assert {"volume error px, median / mean (failed)", "NSD"} <= set(header)
    for name in OF_MODELS:
        with pytest.raises(UsageError, match="evaluate a run"):
            evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "no", metrics=[name])
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_computed_is_refused() -> None:
    entry = a_case()
    for name in OF_IMAGES:
        with pytest.raises(UsageError, match="compute_metric"):
            scored(entry, metrics=[name])
    with pytest.raises(UsageError, match="reads"):
        scored(entry._replace(probabilities=None), metrics=["brier"])
    with pytest.raises(UsageError, match="nsd"):
        scored(entry, metrics=["nsdd"])
    with pytest.raises(InputError, match="own size"):
        scored(entry._replace(probabilities=np.zeros((3, 3, 4, 4))), metrics=["brier"])


@pytest.mark.parametrize(
    "name", sorted(n for n, one in list_protocols().items() if one.task == "labels")
)
def test_every_protocol_takes_more_metrics(name: str, tmp_path: Path) -> None:
    protocol = list_protocols()[name]
    target = protocol.target or TargetSpec(kind="binary", names=("background", "one"))
    stack = protocol.stacks[-1]
    label = np.zeros((1 if stack == "single" else 4, 16, 16), np.uint8)
    label[:, 2:9, 3:11] = 1
    prediction = np.roll(label, 1, axis=1)
    case = Case("a", "a", label[:, None], label, stack=stack, spacing=(1.0, 0.5, 0.5))
    extra = ["nsd", "object-dice", "hd95-area", "ece", "mae", "dice"]
    entry = Scored(case, prediction, 0.9 * prediction[:, None])
    evaluation = evaluate_cases(
        [entry], tmp_path / "e", target=target, protocol=protocol, metrics=extra
    )
    metrics = {row.score.metric for row in evaluation.rows}
    assert metrics == ({*protocol.definitions, *extra}) - {"false-alarm"}
    for metric in extra[:5]:
        assert evaluation.manifest.metrics[metric].label in " ".join(
            summary_table([evaluation]).header
        )


def test_an_evaluation_of_format_1_is_read() -> None:
    folder = Path(__file__).parent / "samples" / "format-1"
    old = read_evaluation(folder)
    assert old.manifest.recipe_digest is None
    assert old.manifest.metrics["hd95"].is_distance
    line = summary_table([old]).markdown().splitlines()
    assert line[0].split(" | ")[4:7] == [
        "HD95 mm, median / mean (failed)",
        "ASD mm, median / mean (failed)",
        "false alarms",
    ]
    # Written when means were taken over cases, then classes; the rows give today's.
    assert "over a group's cases, over groups" in old.manifest.means
    assert "0.8095 | 0.8571 | 0.6667 | 1.50 / 1.50 (0 of 3) | 0.41 / 0.41" in line[2]
