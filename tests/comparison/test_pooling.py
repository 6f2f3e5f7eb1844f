"""All runs of an arm in one table: every case of a cross-validation once."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.cli import main
from segweave.comparison import compare
from segweave.comparison.pooling import pool, write_pooled
from segweave.errors import InputError, UsageError
from tests.comparison.made import evaluation, level, shifted


def run(folder: Path, fold: int, seed: int = 0, arm: str = "unet", name: str = "clean") -> Path:
    """A run folder as training and scoring leave it: four groups per fold."""
    dice = level if arm == "unet" else shifted(0.02)
    home = folder / arm / f"fold-{fold}" / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    (home / "recipe.yaml").write_text("network: {name: unet}\n")
    evaluation(
        home / "evaluation" / name,
        arm,
        dice,
        groups=range(4 * fold, 4 * fold + 4),
        seed=seed,
        fold=fold,
    )
    return home


def value(cell: str) -> float:
    return float(cell.split(" ")[0])


def test_every_case_is_in_the_table_once(tmp_path: Path) -> None:
    runs = [run(tmp_path, fold) for fold in range(5)]
    pooled = pool([tmp_path])
    (row,) = pooled.table.rows
    expected = np.mean([level(g, 0) for g in range(20)])
    assert value(row[1]) == pytest.approx(expected, abs=5e-5)
    text = pooled.table.markdown()
    assert "20 cases, 20 groups" in text
    assert "unet: 5 folds; each of their 20 cases was scored in one of them." in text
    assert [row[:5] for row in pooled.runs.rows] == [
        ("unet", str(k), "0", "4", "4") for k in range(5)
    ]
    for given_ in (runs, [home / "evaluation" / "clean" for home in runs], [tmp_path, *runs]):
        assert pool(given_).table == pooled.table


@given(st.permutations(range(5)), st.integers(1, 3))
@settings(max_examples=5, deadline=None)
def test_the_order_of_runs_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], seeds: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    runs = [run(folder, fold, seed) for seed in range(seeds) for fold in range(5)]
    shuffled = [runs[5 * seed + k] for seed in range(seeds) for k in order]
    one, other = pool(runs), pool(shuffled)
    assert one.table.rows == other.table.rows
    assert one.runs == other.runs


def test_several_arms_and_seeds(tmp_path: Path) -> None:
    for arm in ("unet", "unet+conv"):
        for seed in (0, 1):
            for fold in range(3):
                run(tmp_path, fold, seed, arm)
    pooled = pool([tmp_path])
    assert [row[0] for row in pooled.table.rows] == ["unet", "unet+conv"]
    expected = np.mean([level(g, s) for g in range(12) for s in (0, 1)])
    assert value(pooled.table.rows[0][1]) == pytest.approx(expected, abs=5e-5)
    assert len(pooled.runs.rows) == 12


def test_what_is_missing_is_noted(tmp_path: Path) -> None:
    for fold, seed in ((0, 0), (0, 1), (1, 0), (3, 0), (3, 1)):
        run(tmp_path, fold, seed)
    text = pool([tmp_path]).table.markdown()
    assert "unet has no run of: fold 1, seed 1." in text
    assert "unet lacks fold 2" in text


def test_cases_of_several_folds_are_noted(tmp_path: Path) -> None:
    homes = [
        evaluation(tmp_path / str(k), "unet", level, groups=range(8), fold=k).folder
        for k in range(3)
    ]
    assert "8 cases scored in several folds" in pool(homes).table.markdown()


def test_another_evaluation_by_its_name(tmp_path: Path) -> None:
    home = run(tmp_path, 0)
    with pytest.raises(InputError, match="--evaluation: clean") as caught:
        pool([tmp_path], evaluation="published")
    assert str(home) in str(caught.value)
    run(tmp_path, 0, name="published")
    assert pool([tmp_path], evaluation="published").table.rows


def test_nothing_to_pool(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="a run, a folder of runs"):
            pool([folder])
    with pytest.raises(UsageError, match="runs or evaluations"):
        pool([])
    home = run(tmp_path, 0)
    (home / "evaluation" / "clean" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"segweave evaluate .*seed-0"):
        pool([home])


@pytest.mark.parametrize("ending", [".md", ".tex", ".csv"])
def test_the_tables_can_be_written(tmp_path: Path, ending: str) -> None:
    for fold in range(3):
        run(tmp_path, fold)
    file = write_pooled(pool([tmp_path]), tmp_path / f"cv{ending}")
    text = file.read_text()
    if ending == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [(row["fold"], row["cases"]) for row in rows] == [(str(k), "4") for k in range(3)]
    else:
        assert "All cases" in text
        assert "Each run" in text
    with pytest.raises(UsageError, match="ending in"):
        write_pooled(pool([tmp_path]), tmp_path / "cv.txt")


def test_the_command_and_where_compare_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(5):
        run(tmp_path, fold)
    with pytest.raises(SystemExit) as left:
        main(["summarise", str(tmp_path), "--out", str(tmp_path / "cv.md")])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "All cases" in out
    assert "Each run" in out
    with pytest.raises(UsageError, match="segweave summarise RUN"):
        compare(sorted(tmp_path.glob("unet/*/*/evaluation/clean")), "unet")
