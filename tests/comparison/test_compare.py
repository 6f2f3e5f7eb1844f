"""From evaluation folders to verdicts."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from segweave.comparison import (
    Comparison,
    as_csv,
    as_latex,
    as_markdown,
    compare,
    comparison_tables,
)
from segweave.comparison.rendering import latex_table
from segweave.comparison.variance import mean_squares, paired_effect
from segweave.evaluation import Row, Score
from segweave.evaluation.protocols import list_protocols
from segweave.evaluation.tables import Table
from tests.comparison.made import arms, evaluation, level, shifted


def found(folder: Path, **options: object) -> Comparison:
    dice = {"unet": level, "better": shifted(0.03), "same": shifted(0.0)}
    made = arms(folder, dice, parameters=1000)
    return compare(made, "unet", **options)  # type: ignore[arg-type]


def test_the_main_test_is_on_groups_and_seeds(tmp_path: Path) -> None:
    result = found(tmp_path)
    better, same = result.arms
    dice = shifted(0.03)
    table = np.array([[dice(g, s) - level(g, s) for s in range(3)] for g in range(8)])
    effect = paired_effect(table)
    assert better.difference == pytest.approx(table.mean())
    assert better.main is not None
    assert better.main.design == "groups × seeds, both random, seeds paired"
    assert better.main.p == pytest.approx(float(effect.p))
    assert better.main.critical == pytest.approx(float(effect.critical()))
    assert better.main.trainings == "3 seeds"
    assert (better.low, better.high) == tuple(pytest.approx(float(e)) for e in effect.interval())
    assert better.weights.p == 2 / 2**8
    low, high = stats.t.interval(0.95, 7, table.mean(), stats.sem(table.mean(1)))
    assert (better.weights.low, better.weights.high) == (pytest.approx(low), pytest.approx(high))
    assert better.effect_size == pytest.approx(table.mean() / table.mean(1).std(ddof=1))
    assert (better.better, better.worse) == (8, 0)
    assert better.shares is not None
    assert better.shares.groups + better.shares.seeds + better.shares.rest == pytest.approx(1)
    assert better.p_holm == pytest.approx(2 * better.main.p)
    assert same.p is not None
    assert same.p > 0.05
    assert (
        "better is better than unet by 0.0295 Dice (95 % interval of this comparison alone +0.0"
    ) in better.verdict
    assert "; limits: new seeds on this training set." in better.verdict
    assert any("5 seeds or more are asked for" in note for note in result.notes)
    assert same.verdict.startswith("No difference between same and unet is shown")
    assert "does not prove that there is none" in same.verdict


def test_folders_are_read_as_well(tmp_path: Path) -> None:
    one = found(tmp_path)
    folders = sorted(tmp_path.iterdir())
    other = compare(folders, "unet")
    assert {a.arm: a.p for a in other.arms} == {a.arm: a.p for a in one.arms}
    assert other.facts[0].arm == "unet"
    assert other.facts[0].seeds == [0, 1, 2]


def test_margin_tests_equivalence(tmp_path: Path) -> None:
    wide = found(tmp_path, margin=0.02)
    better, same = wide.arms
    assert same.equivalent
    assert "equivalent within ±0.02" in same.verdict
    assert better.equivalent is False
    narrow = compare(sorted(tmp_path.iterdir()), "unet", margin=0.0005)
    assert narrow.arms[1].equivalent is False
    assert "No difference" in narrow.arms[1].verdict or "no difference" in narrow.arms[1].verdict
    huge = compare(sorted(tmp_path.iterdir()), "unet", margin=0.5)
    better = next(arm for arm in huge.arms if arm.arm == "better")
    assert "yet by less than the margin of 0.5" in better.verdict


def test_fewer_than_three_seeds_hold_for_these_weights_only(tmp_path: Path) -> None:
    made = arms(tmp_path, {"a": level, "b": shifted(0.03)}, seeds=(0, 1))
    (b,) = compare(made, "a").arms
    assert b.main is None
    assert b.p == b.weights.p == 2 / 2**8
    assert b.verdict.startswith("Holds for these weights only: b is better than a")
    assert "at least 3 of each are needed to speak of new ones" in b.verdict
    dice = shifted(0.03)
    table = np.array([[dice(g, s) - level(g, s) for s in (0, 1)] for g in range(8)])
    parts = [float(part) for part in mean_squares(table).components()]
    assert b.shares is not None
    assert b.shares.seeds == pytest.approx(parts[1] / sum(parts))
    one = [run for run in made if run.manifest.seeds == [0]]
    assert compare(one, "a").arms[0].shares is None


def test_fewer_than_six_groups_have_no_p(tmp_path: Path) -> None:
    made = arms(tmp_path, {"a": level, "b": shifted(0.03)}, groups=range(5))
    (b,) = compare(made, "a", margin=0.01).arms
    assert (b.p, b.p_holm, b.weights.p, b.equivalent) == (None, None, None, None)
    assert b.low is not None  # the interval is still that of groups and seeds
    assert "5 groups; at least 6 are needed for a p-value" in b.verdict
    assert "is not decided" in b.verdict
    assert "these weights only" not in b.verdict


def test_one_group_and_one_run(tmp_path: Path) -> None:
    made = arms(tmp_path, {"a": level, "b": shifted(0.03)}, groups=[0], seeds=(None,))
    result = compare(made, "a")
    assert result.arms[0].low is None
    assert result.arms[0].verdict.startswith("Holds for these weights only: b scores +0.0")
    assert all(table.markdown() for table in comparison_tables(result))


def test_other_peoples_seeds_are_not_paired(tmp_path: Path) -> None:
    ours = arms(tmp_path, {"a": level})
    theirs = [
        evaluation(tmp_path / f"b{k}", "b", shifted(0.03), seed=k, checkpoint=None)
        for k in (7, 8, 9, 10)
    ]
    result = compare([*ours, *theirs], "a")
    (b,) = result.arms
    assert b.main is not None
    assert "seeds not paired" in b.main.design
    assert b.shares is None
    for shares, dice, seeds in (
        (b.own_shares, shifted(0.03), (7, 8, 9, 10)),
        (b.reference_shares, level, (0, 1, 2)),
    ):
        assert shares is not None
        parts = mean_squares(np.array([[dice(g, s) for s in seeds] for g in range(8)])).components()
        assert (shares.groups, shares.seeds, shares.rest) == tuple(
            pytest.approx(float(part) / float(sum(parts))) for part in parts
        )
    text = as_markdown(result)
    assert f"| b {b.own_shares.groups:.0%} / " in text  # type: ignore[union-attr]
    assert "; of one Dice of an arm, where seeds are not paired." in text
    row = next(csv.DictReader(io.StringIO(as_csv(result))))
    assert row["share_seeds"] == ""
    assert float(row["own_share_seeds"]) == b.own_shares.seeds  # type: ignore[union-attr]
    assert any("unknown for: b" in note for note in result.notes)
    assert any("nothing is gained from pairing" in note for note in result.notes)


def test_holm_goes_over_the_arms_that_were_tested(tmp_path: Path) -> None:
    made = arms(tmp_path, {f"arm{k}": shifted(0.002 * k) for k in range(4)} | {"a": level})
    result = compare(made, "a")
    tested = sorted(arm.p for arm in result.arms if arm.p is not None)
    assert result.arms[0].p_holm is not None
    smallest = min(arm.p_holm for arm in result.arms if arm.p_holm is not None)
    assert smallest == pytest.approx(min(1, 4 * tested[0]))
    assert "after Holm over 4 arms" in result.arms[-1].verdict


def test_test_cases_scored_again_are_noted(tmp_path: Path) -> None:
    once = arms(tmp_path / "once", {"a": level, "b": shifted(0.02)}, tested={"clean": 1})
    assert not any("more than once" in note for note in compare(once, "a").notes)
    twice = evaluation(tmp_path / "c", "c", level, tested={"clean": 1, "clean-best": 2})
    notes = " ".join(compare([*once, twice], "a").notes)
    assert "more than once" in notes
    assert "c, seed 0: 3 times (clean 1×, clean-best 2×)" in notes


def test_one_of_a_kind_is_no_plural(tmp_path: Path) -> None:
    made = arms(tmp_path, {"a": level, "b": shifted(0.03)}, groups=[0])
    text = as_markdown(compare(made, "a"))
    assert "1 case, 1 group." in text
    assert "1 groups" not in text


def test_a_group_is_the_mean_of_its_cases_and_a_case_of_its_classes(tmp_path: Path) -> None:
    def scores(add: float, arm: str) -> list[Row]:
        rows = []
        for case, name, index, value in (
            ("x", "one", 0, 0.2),
            ("x", "one", 1, 0.4),
            ("x", "two", 0, 0.9),
            ("y", "one", 0, 0.5),
        ):
            score = Score(index, name, "dice", value + add)
            rows.append(Row(case, "video", score, arm, 0))
        return rows

    made = [
        evaluation(tmp_path / arm, arm, level, extra=scores(add, arm), classes=["one", "two"])
        for arm, add in (("a", 0.0), ("b", 0.1))
    ]
    result = compare(made, "a")
    (b,) = result.arms
    assert b.by_case["x"] == (pytest.approx(0.7), pytest.approx(0.6))
    assert b.by_group["video"] == pytest.approx(0.1)
    without = np.mean([level(g, 0) for g in range(8)]) * 8
    assert b.reference_mean == pytest.approx((without + (0.6 + 0.5) / 2) / 9)


def distances(arm: str, values: list[float | None]) -> list[Row]:
    rows = []
    for k, value in enumerate(values):
        status = "scored" if value is not None else "failed"
        score = Score(None, "organ", "hd95", value, "mm", status)  # type: ignore[arg-type]
        rows.append(Row(f"case {k:02}", f"patient {k:02}", score, arm, 0))
    return rows


def test_a_failed_distance_is_left_out_of_the_mean_and_worst_in_the_count(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", "a", level, extra=distances("a", [5, None, 3, 4, 2, 2, 2, 2]))
    b = evaluation(tmp_path / "b", "b", level, extra=distances("b", [4, 90, None, 4, 1, 1, 1, 1]))
    (row,) = compare([a, b], "a").arms[0].exploratory
    assert (row.metric, row.unit, row.groups) == ("hd95", "mm", 6)
    assert row.difference == pytest.approx(-5 / 6)
    # The case that a alone missed counts for b, the one that b missed against it.
    assert (row.better, row.worse) == (6, 1)
    assert (row.failed, row.reference_failed) == (1, 1)


def test_metrics_that_are_left_out_are_named(tmp_path: Path) -> None:
    def scores(arm: str, *units: str) -> list[Row]:
        return [
            Row(f"case {g:02}", f"patient {g:02}", Score(None, "organ", metric, 2.0, unit), arm, 0)
            for metric, unit in zip(("hd95", "asd"), units, strict=False)
            for g in range(8)
        ]

    made = [
        evaluation(tmp_path / arm, arm, level, extra=scores(arm, *units))
        for arm, units in (("a", ("mm", "mm")), ("b", ("px", "mm")), ("c", ("mm",)), ("d", ("px",)))
    ]
    found = compare(made, "a")
    shown = [[row.metric for row in arm.exploratory] for arm in found.arms]
    assert shown == [["asd"], ["hd95"], []]
    assert (
        "Left out of what is exploratory: hd95 of b, d (mm and px); "
        "asd of c, d (not scored in both)."
    ) in found.notes
    assert "Left out" in as_markdown(compare([made[0], made[3]], "a"))


def test_tests_over_cases_stand_under_published_alone(tmp_path: Path) -> None:
    dice = {"a": level, "b": shifted(0.03)}
    clean = compare(arms(tmp_path / "c", dice), "a")
    assert clean.arms[0].case_tests is None
    assert "over cases" not in as_markdown(clean)
    published = compare(arms(tmp_path / "p", dice, protocol="published"), "a")
    tests = published.arms[0].case_tests
    assert tests is not None
    ours, theirs = np.array(list(published.arms[0].by_case.values())).T
    assert tests.t_p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert tests.wilcoxon_p == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    assert "Published: tests over cases" in as_markdown(published)


def test_equal_arms(tmp_path: Path) -> None:
    result = compare(arms(tmp_path, {"a": level, "b": level}), "a", margin=0.01)
    (b,) = result.arms
    assert (b.p, b.difference, b.equal, b.effect_size) == (1, 0, 8, None)
    assert b.equivalent
    assert "equivalent" in b.verdict


def test_notes_name_what_weakens_the_result(tmp_path: Path) -> None:
    made = arms(
        tmp_path,
        {"a": level, "conv": shifted(0.01), "b": shifted(0.02)},
        grouped=False,
        checkpoint="best-on-test",
        sources={"part": "validation", "store": "a checksum"},
        prompt="box",
        remarks=["b: boxes taken from the reference."],
    )
    notes = " ".join(compare(made, "a").notes)
    for words in (
        "its own group",
        "chosen on the test set",
        "validation cases, on which choices were made",
        "--reference conv",
        "b: boxes taken from the reference.",
    ):
        assert words in notes


def test_markdown_latex_and_csv_hold_the_same(tmp_path: Path) -> None:
    result = found(tmp_path, margin=0.02)
    better = result.arms[0]
    text = as_markdown(result)
    for words in (
        "Primary endpoint: macro Dice against unet",
        "| unet (reference) |",
        f"{better.difference:+.4f} [{better.low:+.4f}, {better.high:+.4f}]",
        "Protocol clean",
        "8 cases, 8 groups",
        "seeds 0, 1, 2",
        "Weights chosen by: last",
        "Holm over 2 arms",
    ):
        assert words in text
    latex = as_latex(result)
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2
    assert r"groups $\times$ seeds" in latex
    assert r"95 \% interval" in latex
    (first, _) = csv.DictReader(io.StringIO(as_csv(result)))
    assert first["arm"] == "better"
    assert float(first["difference"]) == better.difference
    assert float(first["p_holm"]) == better.p_holm
    assert first["verdict"] == better.verdict
    assert r"\item better is better than unet by" in latex
    for name, value in (
        ("protocol", "clean"),
        ("definition", "2·TP / (2·TP + FP + FN)"),
        ("cases", "8"),
        ("groups", "8"),
        ("seeds", "0 1 2"),
        ("reference_seeds", "0 1 2"),
        ("parameters", "1000"),
        ("margin", "0.02"),
        ("low90", str(better.low90)),
        ("high90", str(better.high90)),
    ):
        assert first[name] == value


def test_names_in_a_comparison_are_texts_in_every_form(tmp_path: Path) -> None:
    result = found(tmp_path, margin=0.02)
    name = "=1+1\x1b[2J<script>\n- x"
    arm = result.arms[0].model_copy(update={"arm": name, "verdict": f"{name} is better"})
    facts = [
        one.model_copy(update={"arm": name}) if one.arm == "better" else one for one in result.facts
    ]
    result = result.model_copy(
        update={"arms": [arm], "facts": facts, "verdicts": [f"{name} is better"]}
    )
    for text in (as_markdown(result), as_latex(result), as_csv(result)):
        assert "\x1b" not in text
        assert "\n- x" not in text
    assert "<script" not in as_markdown(result)
    (row, *_) = csv.DictReader(io.StringIO(as_csv(result)))
    assert row["arm"].startswith("'=1+1")
    assert row["verdict"].startswith("'=1+1")
    assert row["difference"] == repr(arm.difference)


def test_a_comparison_survives_json(tmp_path: Path) -> None:
    result = found(tmp_path)
    assert Comparison.model_validate_json(result.model_dump_json()) == result


def test_all_that_protocols_say_can_be_set_in_latex() -> None:
    for name, protocol in list_protocols().items():
        said = (protocol.title, protocol.means, *protocol.definitions.values(), *protocol.sources)
        text = latex_table(Table(name, ("arm",), (("a",),), said))
        assert text.isascii(), {letter for letter in text if not letter.isascii()}
