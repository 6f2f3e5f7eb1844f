"""What must not be compared is refused, and the message says what differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.comparison import compare, write_text
from segweave.errors import InputError, UsageError
from segweave.evaluation import (
    Evaluation,
    Manifest,
    Row,
    Score,
    evaluate_folders,
    write_evaluation,
)
from tests.comparison.made import arms, evaluation, level, shifted

DICE = {"a": level, "b": shifted(0.01)}


def test_other_protocols(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "a", level)
    b = evaluation(tmp_path / "b", "b", level, protocol="published")
    with pytest.raises(UsageError, match=r"protocol: .*'clean'.*'published'"):
        compare([a, b], "a")


def test_other_definitions(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "a", level)
    b = evaluation(tmp_path / "b", "b", level, definitions={"dice": "another"})
    with pytest.raises(UsageError, match="definition of dice"):
        compare([a, b], "a")


def test_other_classes(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "a", level)
    b = evaluation(tmp_path / "b", "b", level, classes=["foreground"])
    with pytest.raises(UsageError, match=r"classes: .*'organ'.*'foreground'"):
        compare([a, b], "a")


def test_other_cases(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "a", level, groups=range(8))
    b = evaluation(tmp_path / "b", "b", level, groups=range(2, 9))
    with pytest.raises(UsageError, match="only in a: case 00, case 01; only in b: case 08"):
        compare([a, b], "a")


def test_other_groups_and_other_references(tmp_path: Path) -> None:
    def one(arm: str, group: str, name: str) -> Row:
        return Row("extra", group, Score(None, name, "dice", 0.5), arm, 0)

    a = evaluation(tmp_path / "a", "a", level, extra=[one("a", "p", "organ")])
    b = evaluation(tmp_path / "b", "b", level, extra=[one("b", "q", "organ")])
    with pytest.raises(UsageError, match="in other groups: extra"):
        compare([a, b], "a")
    c = evaluation(tmp_path / "c", "c", level, extra=[one("c", "p", "other")])
    with pytest.raises(UsageError, match="other classes or slices count in: extra"):
        compare([a, c], "a")


def test_other_choice_rules_where_known(tmp_path: Path) -> None:
    made = arms(tmp_path / "a", {"a": level}, checkpoint="last")
    best = arms(tmp_path / "b", {"b": level}, checkpoint="best")
    with pytest.raises(UsageError, match="a: last; b: best"):
        compare([*made, *best], "a")
    unknown = arms(tmp_path / "c", {"b": level}, checkpoint=None)
    assert any("unknown for: b" in note for note in compare([*made, *unknown], "a").notes)


def test_runs_of_one_arm_chosen_differently(tmp_path: Path) -> None:
    made = arms(tmp_path / "a", {"a": level, "b": level}, seeds=(0, 1))
    other = evaluation(tmp_path / "other", "b", level, seed=2, checkpoint="best")
    with pytest.raises(UsageError, match="b: best and last"):
        compare([*made, other], "a")


def test_other_parts(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "a", level, sources={"part": "test"})
    b = evaluation(tmp_path / "b", "b", level, sources={"part": "validation"})
    with pytest.raises(UsageError, match="a: test; b: validation"):
        compare([a, b], "a")


def test_one_run_twice(tmp_path: Path) -> None:
    made = arms(tmp_path, DICE)
    with pytest.raises(InputError, match="case 00 twice"):
        compare([*made, made[0]], "a")


@pytest.mark.parametrize("folds", [(None, 0), (None, 0, 1)])
def test_a_seed_with_and_without_a_fold(tmp_path: Path, folds: tuple[int | None, ...]) -> None:
    made = [
        evaluation(tmp_path / f"{arm}{fold}", arm, level, fold=fold)
        for arm in "ab"
        for fold in folds
    ]
    with pytest.raises(InputError, match="seed 0 once without a fold and once in fold 0"):
        compare(made, "a")


def test_a_run_that_lacks_cases(tmp_path: Path) -> None:
    made = arms(tmp_path, DICE, seeds=(0, 1))
    few = evaluation(tmp_path / "few", "b", level, seed=2, groups=range(5))
    with pytest.raises(InputError, match="seed 2, fold None lacks case 05, case 06, case 07"):
        compare([*made, few], "a")


def test_a_run_without_dice(tmp_path: Path) -> None:
    made = arms(tmp_path, DICE, seeds=(0, 1))
    rows = [
        Row(f"case {g:02}", f"patient {g:02}", Score(None, "organ", "iou", 0.5), "b", 2)
        for g in range(8)
    ]
    bare = evaluation(tmp_path / "bare", "b", level, groups=[], extra=rows)
    with pytest.raises(InputError, match="Dice of the same classes and slices from each run of b"):
        compare([*made, bare], "a")


def test_other_folds(tmp_path: Path) -> None:
    def runs(arm: str, size: int) -> list:
        return [
            evaluation(
                tmp_path / f"{arm}{k}", arm, level, groups=range(k * size, (k + 1) * size), fold=k
            )
            for k in range(12 // size)
        ]

    with pytest.raises(UsageError, match="the same folds"):
        compare([*runs("a", 3), *runs("b", 4)], "a")


def test_unknown_reference_and_nothing_to_compare(tmp_path: Path) -> None:
    made = arms(tmp_path, {"unet": level, "conv": level}, seeds=(0,))
    with pytest.raises(UsageError, match="did you mean unet"):
        compare(made, "unett")
    with pytest.raises(UsageError, match="unet alone"):
        compare(made[:1], "unet")
    with pytest.raises(UsageError, match="none"):
        compare([], "unet")
    for wrong in (0.0, -0.1, 1.5):
        with pytest.raises(UsageError, match="between 0 and 1"):
            compare(made, "unet", margin=wrong)


def test_a_run_folder_names_its_evaluations(tmp_path: Path) -> None:
    evaluation(tmp_path / "run" / "evaluation" / "clean", "a", level)
    with pytest.raises(InputError, match=r"name its evaluation: .*run/evaluation/clean"):
        compare([tmp_path / "run"], "a")


def test_predictions_without_an_arm_take_the_folders_name(tmp_path: Path) -> None:
    made = [evaluation(tmp_path / name, "", level, seed=None) for name in ("mine", "theirs")]
    assert compare(made, "mine").arms[0].arm == "theirs"


def test_an_ending_that_is_no_table(tmp_path: Path) -> None:
    result = compare(arms(tmp_path, DICE), "a")
    with pytest.raises(UsageError, match=r"\.md, \.tex, \.csv or \.html"):
        write_text(result, tmp_path / "table.docx")
    assert not (tmp_path / "table.docx").exists()


def test_other_references_under_the_same_names_are_refused(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:24, :30]
    scored = []
    for arm, shift in (("a", 0), ("b", 3)):
        for k in range(6):
            for folder, more in (("p", 1), ("r", shift)):
                place = tmp_path / arm / folder
                place.mkdir(parents=True, exist_ok=True)
                disc = (rows - 12) ** 2 + (columns - 12 - more) ** 2 < (5 + k) ** 2
                Image.fromarray(disc.astype(np.uint8)).save(place / f"image{k}.png")
        scored.append(
            evaluate_folders(
                tmp_path / arm / "p", tmp_path / arm / "r", tmp_path / f"{arm}-scores", arm=arm
            )
        )
    with pytest.raises(UsageError, match="other true labels in: image0, image1"):
        compare(scored, "a")
    # An evaluation of before says nothing of its references.
    scored[1].manifest.references = {}
    assert compare(scored, "a").arms[0].arm == "b"


def two_classes(
    folder: Path, arm: str, seed: int, *, lack: str = "", failed: str = "", metric: str = "dice"
) -> Evaluation:
    """A run with two classes in each case; the first case lacks one, or has no value of it."""
    rows = []
    for g in range(8):
        for name, added in (("one", 0.0), ("two", -0.3)):
            for of in {"dice", metric}:
                if g == 0 and of == metric and name == lack:
                    continue
                none = g == 0 and of == metric and name == failed
                value = None if none else level(g, seed) + added
                score = Score(None, name, of, value, "", "failed" if none else "scored")
                rows.append(Row(f"case {g:02}", f"patient {g:02}", score, arm, seed))
    manifest = Manifest(
        protocol="clean",
        title="as said",
        means="over groups",
        definitions={"dice": "as said"},
        classes=["one", "two"],
    )
    return write_evaluation(folder, rows, manifest)


@pytest.mark.parametrize("fault", [{"lack": "two"}, {"failed": "two"}, {"lack": "one"}])
@pytest.mark.parametrize("where", ["a", "b"])
def test_a_run_that_lacks_a_class_in_one_case(
    tmp_path: Path, fault: dict[str, str], where: str
) -> None:
    made = [
        two_classes(
            tmp_path / f"{arm}{seed}", arm, seed, **(fault if (arm, seed) == (where, 1) else {})
        )
        for arm in "ab"
        for seed in range(3)
    ]
    with pytest.raises(InputError, match=r"seed 1, fold None lacks (one|two) of case 00") as caught:
        compare(made, "a")
    assert "evaluate that run again" in str(caught.value)


@pytest.mark.parametrize("fault", [{"lack": "two"}, {"lack": "one"}])
def test_another_metric_that_a_run_lacks_is_left_out_and_named(
    tmp_path: Path, fault: dict[str, str]
) -> None:
    made = [
        two_classes(
            tmp_path / f"{arm}{seed}",
            arm,
            seed,
            metric="iou",
            **(fault if (arm, seed) == ("b", 1) else {}),
        )
        for arm in "ab"
        for seed in range(3)
    ]
    found = compare(made, "a")
    assert "iou" not in {row.metric for row in found.arms[0].exploratory}
    assert any("iou of b (not scored on the same classes" in note for note in found.notes)


@pytest.mark.parametrize(("value", "remedy"), [(87.4, "by 100"), (-0.2, ""), (1.5, "by 100")])
def test_dice_that_is_no_share(tmp_path: Path, value: float, remedy: str) -> None:
    bad = evaluation(tmp_path / "b", "b", lambda g, s: value if g == 3 else level(g, s))
    with pytest.raises(InputError, match="Dice between 0 and 1") as caught:
        compare([evaluation(tmp_path / "a", "a", level), bad], "a")
    assert "case 03" in str(caught.value)
    assert remedy in str(caught.value)
