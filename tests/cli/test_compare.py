"""`segweave compare` as a person sees it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tests.comparison.made import arms, evaluation, level, shifted


def test_tables_verdicts_and_files(command: Command, tmp_path: Path) -> None:
    arms(tmp_path / "e", {"unet": level, "conv": shifted(0.03)})
    folders = sorted((tmp_path / "e").iterdir())
    written = [tmp_path / f"table.{kind}" for kind in ("md", "tex", "csv")]
    outs = [part for path in written for part in ("--out", path)]
    seen = command("compare", *folders, "--reference", "unet", "--margin", "0.01", *outs)
    assert seen.code == 0, seen.err
    assert "Primary endpoint: macro Dice against unet" in seen.out
    assert "conv is better than unet by" in seen.out
    assert all(path.is_file() and f"comparison: {path}" in seen.out for path in written)


def test_published(command: Command) -> None:
    seen = command("compare", "--published")
    assert seen.code == 0, seen.err
    assert "| TIP VIII, Synapse, SA-LSTM | 3.6025 | 3.6025 | 0.0227 | 0.0227 |" in seen.out
    for option in (("--reference", "a"), ("--margin", "0.01"), ("--training-groups", "9")):
        command("compare", "--published", *option).refused("--published alone")


def test_wrong_use(command: Command, tmp_path: Path) -> None:
    evaluation(tmp_path / "a", "a", level)
    evaluation(tmp_path / "b", "b", level, groups=range(3))
    command("compare").refused("no folders")
    command("compare", tmp_path / "a").refused("segweave summarise")
    evaluation(tmp_path / "c", "c", level)
    command("compare", tmp_path / "a", tmp_path / "c").refused("among the arms a, c")
    command("compare", tmp_path / "a", tmp_path / "b", "--reference", "a").refused("only in a")
    command("compare", tmp_path / "no", "--reference", "a").refused("no such folder")
    command("compare", tmp_path / "a", tmp_path / "a", "--reference", "x").refused("twice")


def test_a_wrong_ending_is_refused_before_anything_is_printed(
    command: Command, tmp_path: Path
) -> None:
    arms(tmp_path / "e", {"a": level, "b": level})
    folders = sorted((tmp_path / "e").iterdir())
    seen = command("compare", *folders, "--reference", "a", "--out", tmp_path / "t.docx")
    seen.refused(".html")
    assert seen.out == ""
