"""The evaluation folder: out and in again, and every way in which one can be bad."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.evaluation import (
    Evaluation,
    Row,
    Score,
    evaluate_cases,
    read_evaluation,
    summarise,
    validation_scores,
    write_evaluation,
)
from segweave.evaluation.folder import COLUMNS, new_manifest

TARGET = TargetSpec(names=("background", "one", "two"))


def cases(
    count: int = 4, spacing: tuple[float, float, float] | None = (8.0, 1.5, 1.5)
) -> list[Case]:
    examples = []
    for k in range(count):
        label = np.zeros((3, 16, 16), np.uint8)
        label[:, 2 : 8 + k, 2:9] = 1
        if k != 1:
            label[1, 12:14, 12:15] = 2
        image = np.zeros((3, 1, 16, 16), np.float32)
        examples.append(
            Case(f"case {k}", f"patient {k // 2}", image, label, stack="space", spacing=spacing)
        )
    return examples


def worse(case: Case) -> np.ndarray:
    assert case.label is not None
    return np.roll(case.label, 1, axis=2)


def evaluated(out: Path, **options: object) -> Evaluation:
    return evaluate_cases(
        ((case, worse(case)) for case in cases()),
        out,
        target=TARGET,
        **options,  # type: ignore[arg-type]
    )


def test_round_trip(tmp_path: Path) -> None:
    written = evaluated(tmp_path / "e", arm="unet", seed=3, parameters=1234, sources={"run": "r"})
    read = read_evaluation(tmp_path / "e")
    assert read.rows == written.rows
    assert read.manifest == written.manifest
    manifest = read.manifest
    assert (manifest.cases, manifest.groups, manifest.seeds, manifest.arms) == (4, 2, [3], ["unet"])
    assert manifest.units["hd95"] == ["mm"]
    assert manifest.protocol == "clean"
    assert {"segweave", "numpy", "scipy"} <= set(manifest.versions)
    assert [p.name for p in sorted((tmp_path / "e").iterdir())] == [
        "cases.csv",
        "manifest.json",
        "summary.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["e"]  # nothing temporary is left


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=4, max_size=4))
@example(["a\u2028b", "c\x85d", "e\x0bf", "g\x1ch"])
@example(["a\rb", "c\nd", "e\r\nf", 'g"h,'])
@example(["=a", "'=b", "\t-c", "''@d"])
@example(["-1", "+x", "=", "@"])
def test_any_names_are_read_back(names: list[str]) -> None:
    case, group, class_name, arm = names
    rows = (Row(case, group, Score(None, class_name, "dice", 0.5), arm, 0),)
    with tempfile.TemporaryDirectory() as folder:
        write_evaluation(Path(folder) / "e", rows, new_manifest("clean", TARGET))
        assert read_evaluation(Path(folder) / "e").rows == rows
        with (Path(folder) / "e" / "cases.csv").open(newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t")] in ([], ["-1"])


def test_the_table_of_cases_is_long_and_plain(tmp_path: Path) -> None:
    evaluated(tmp_path / "e", arm="unet", fold=2)
    with (tmp_path / "e" / "cases.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == COLUMNS
    line = next(r for r in lines if r["case"] == "case 1" and r["class"] == "two")
    assert line["metric"] == "false-alarm"
    assert (line["slice"], line["group"], line["seed"], line["fold"]) == ("", "patient 0", "", "2")


def test_the_summary_counts_what_fails(tmp_path: Path) -> None:
    def missing(case: Case) -> np.ndarray:
        return np.where(worse(case) == 2, 0, worse(case)).astype(np.uint8)

    pairs = ((case, missing(case) if case.id == "case 0" else worse(case)) for case in cases())
    evaluation = evaluate_cases(pairs, tmp_path / "e", target=TARGET)
    (summary,) = summarise([evaluation])
    two = summary.classes["two"]
    assert two.distances["hd95"]["mm"].failed == 1
    assert two.distances["hd95"]["mm"].asked == 3
    assert two.distances["hd95"]["mm"].median == pytest.approx(1.5)
    assert two.overlaps["dice"].cases == 3
    # The patient of case 0 alone, and the one of the two others.
    assert two.overlaps["dice"].mean == pytest.approx((0 + 2 / 3) / 2)
    # Groups weigh alike, and a case is the mean over the classes that count there.
    groups: dict[str, list[float]] = {}
    for case in cases():
        values = [
            row.score.value
            for row in evaluation.rows
            if (row.case, row.score.metric) == (case.id, "dice")
        ]
        groups.setdefault(case.group, []).append(np.mean(values))
    expected = np.mean([np.mean(values) for values in groups.values()])
    assert summary.macro.overlaps["dice"].mean == pytest.approx(expected)
    written = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert written["arms"][0]["macro"]["overlaps"]["dice"]["mean"] == pytest.approx(expected)


def test_seeds_are_averaged_before_cases(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / f"e{seed}", arm="unet", seed=seed) for seed in (0, 1)]
    perfect = evaluate_cases(
        ((case, case.label) for case in cases() if case.label is not None),
        tmp_path / "perfect",
        target=TARGET,
        arm="unet",
        seed=2,
    )
    (one,), (joined,) = summarise(runs[:1]), summarise([*runs, perfect])
    assert joined.seeds == [0, 1, 2]
    assert joined.cases == one.cases
    worst = one.macro.overlaps["dice"].mean
    assert joined.macro.overlaps["dice"].mean == pytest.approx((2 * worst + 1) / 3)
    assert joined.seed_sd == pytest.approx(np.std([worst, worst, 1], ddof=1))


def test_frames_are_averaged_before_videos(tmp_path: Path) -> None:
    target = TargetSpec(kind="binary", names=("background", "polyp"))

    def video(name: str, frames: int, hits: int) -> tuple[Case, np.ndarray]:
        label = np.zeros((frames, 8, 8), np.uint8)
        label[:, 2:5, 2:5] = 1
        prediction = label.copy()
        prediction[hits:] = 0
        image = np.zeros((frames, 3, 8, 8), np.uint8)
        return Case(name, name, image, label, stack="time"), prediction

    pairs = [video("long", 10, 10), video("short", 2, 1)]
    evaluation = evaluate_cases(pairs, tmp_path / "e", target=target)
    (summary,) = summarise([evaluation])
    assert summary.macro.overlaps["dice"].mean == pytest.approx((1 + 0.5) / 2)
    assert (summary.cases, summary.images) == (2, 12)
    assert summary.macro.distances["hd95"]["px"].failed == 1
    assert {row.score.slice for row in evaluation.rows} == set(range(10))


def test_validation_scores_are_the_clean_dice(tmp_path: Path) -> None:
    found = validation_scores(worse, cases(), TARGET)
    (summary,) = summarise([evaluated(tmp_path / "e")])
    assert found["dice"] == pytest.approx(summary.macro.overlaps["dice"].mean)
    assert found["dice/two"] == pytest.approx(summary.classes["two"].overlaps["dice"].mean)
    with pytest.raises(InputError, match="holds a class"):
        validation_scores(lambda case: worse(case) * 0, [], TARGET)


def test_all_bad_cases_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    pairs = [(case, worse(case)) for case in cases()]
    pairs[1] = (pairs[1][0], pairs[1][1][:2])
    pairs[2] = (pairs[2][0], pairs[2][1] * 7)
    pairs[3] = (replace(pairs[3][0], label=None), pairs[3][1])
    with pytest.raises(InputError, match="3 problems") as caught:
        evaluate_cases([*pairs, pairs[0]][:4], tmp_path / "e", target=TARGET)
    for name in ("case 1", "case 2", "case 3"):
        assert name in str(caught.value)
    with pytest.raises(InputError, match="comes twice"):
        evaluate_cases([pairs[0], pairs[0]], tmp_path / "e", target=TARGET)
    with pytest.raises(InputError, match="at least one case"):
        evaluate_cases([], tmp_path / "e", target=TARGET)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "e"
    evaluated(out, arm="old")
    with pytest.raises(UsageError, match="force"):
        evaluated(out, arm="new")
    assert read_evaluation(out).manifest.arms == ["old"]
    evaluated(out, arm="new", force=True)
    assert read_evaluation(out).manifest.arms == ["new"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        evaluated(out, force=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_a_crash_leaves_the_old_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "e"
    evaluated(out, arm="old")

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segweave.storage.replace_folder", broken)
    with pytest.raises(KeyboardInterrupt):
        evaluated(out, arm="new", force=True)
    assert read_evaluation(out).manifest.arms == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_evaluation(tmp_path / "nowhere")
    out = tmp_path / "e"
    evaluation = evaluated(out)
    good = (out / "cases.csv").read_bytes(), (out / "manifest.json").read_bytes()
    (out / "cases.csv").write_bytes(good[0][:-30])
    with pytest.raises(InputError, match="cut off or changed"):
        read_evaluation(out)
    (out / "cases.csv").unlink()
    with pytest.raises(InputError, match=r"no cases\.csv"):
        read_evaluation(out)
    (out / "cases.csv").write_bytes(good[0])
    for text, words in (
        ("{", "a manifest"),
        ("[]", "a JSON list"),
        (good[1].decode().replace('"format": 1', '"format": 2'), "format 2"),
        (good[1].decode().replace('"classes"', '"klasses"'), "klasses|classes"),
    ):
        (out / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=words):
            read_evaluation(out)
    assert evaluation.folder == out


@pytest.mark.parametrize(
    ("old", "new"),
    [(",scored,", ",fine,"), ("case,slice", "case,slide"), (",scored,", ",failed,"), ("0.8", "x")],
)
def test_bad_lines_are_named(tmp_path: Path, old: str, new: str) -> None:
    import hashlib

    out = tmp_path / "e"
    evaluated(out)
    text = (out / "cases.csv").read_text()
    assert old in text
    (out / "cases.csv").write_text(text.replace(old, new, 1))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["cases_sha256"] = hashlib.sha256((out / "cases.csv").read_bytes()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"cases\.csv"):
        read_evaluation(out)


def test_one_score_twice_is_refused(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", arm="a")
    with pytest.raises(InputError, match="twice"):
        summarise([evaluation, evaluation])
    with pytest.raises(InputError, match="twice"):
        write_evaluation(tmp_path / "f", evaluation.rows * 2, evaluation.manifest)
    assert not (tmp_path / "f").exists()


def test_other_protocols_are_not_mixed(tmp_path: Path) -> None:
    evaluations = [
        evaluated(tmp_path / name, arm=name, protocol=name) for name in ("clean", "published")
    ]
    with pytest.raises(UsageError, match="different protocol"):
        summarise(evaluations)
