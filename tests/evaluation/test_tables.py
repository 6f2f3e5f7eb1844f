"""Tables state everything that a number needs, and never mix units."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from segweave.evaluation import Evaluation, evaluate_cases, summary_table
from segweave.evaluation.tables import Table
from tests.evaluation.test_folder import TARGET, cases, worse


@pytest.fixture
def arms(tmp_path: Path) -> list[Evaluation]:
    blank = [(case, np.zeros_like(worse(case))) for case in cases()]
    moved = [(case, worse(case)) for case in cases()]
    return [
        evaluate_cases(pairs, tmp_path / arm, target=TARGET, arm=arm, seed=0, parameters=number)
        for arm, pairs, number in (("unet", moved, 12345), ("blank", blank, None))
    ]


def test_markdown(arms: list[Evaluation]) -> None:
    text = summary_table(arms, heading="an example, not evidence").markdown()
    lines = text.splitlines()
    assert lines[0] == "### an example, not evidence"
    header, first, second = lines[2], lines[4], lines[5]
    assert "HD95 mm, median / mean (failed)" in header
    assert "px" not in header
    assert first.startswith("| unet | 0.7")
    assert "±" in first
    assert "[" in first
    assert "12,345" in first
    assert second.startswith("| blank | 0.0000")
    assert "– (7 of 7)" in second
    assert first.count("|") == second.count("|") == header.count("|")
    for words in (
        "Protocol clean",
        "4 cases, 2 groups; scored: 4 volumes in 3D.",
        "95th percentiles",
        "t over groups",
    ):
        assert words in text


def test_each_unit_has_a_column(tmp_path: Path, arms: list[Evaluation]) -> None:
    pixels = [(case, worse(case)) for case in cases(spacing=None)]
    other = evaluate_cases(pixels, tmp_path / "px", target=TARGET, arm="px")
    table = summary_table([arms[0], other])
    mm, px = (table.header.index(f"HD95 {u}, median / mean (failed)") for u in ("mm", "px"))
    assert table.rows[0][px] == "–"
    assert table.rows[1][mm] == "–"
    assert table.rows[0][mm].startswith("1.50")
    assert table.rows[1][px].startswith("1.00")


def test_other_cases_are_pointed_out(tmp_path: Path, arms: list[Evaluation]) -> None:
    few = [(case, worse(case)) for case in cases()[:2]]
    other = evaluate_cases(few, tmp_path / "few", target=TARGET, arm="few")
    notes = " ".join(summary_table([arms[0], other]).notes)
    assert "different cases" in notes
    assert "few: 2 cases, 1 group; scored: 2 volumes in 3D." in notes


def test_rules_of_published_are_counted(tmp_path: Path) -> None:
    pairs = [(case, worse(case)) for case in cases()]
    evaluation = evaluate_cases(
        pairs, tmp_path / "p", target=TARGET, arm="unet", protocol="published"
    )
    table = summary_table([evaluation])
    assert any("by rule" in note and "unet 1" in note for note in table.notes)
    assert "HD95 px, median / mean (failed)" in table.header


def test_rich_shows_the_same_cells(arms: list[Evaluation]) -> None:
    console = Console(width=250, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table = summary_table(arms, heading="a [heading]")
    console.print(table.rich())
    text = console.export_text()
    assert "a [heading]" in text
    assert table.rows[0][1] in text


def test_one_of_anything_is_singular(tmp_path: Path) -> None:
    pairs = [(case, worse(case)) for case in cases()[:1]]
    one = evaluate_cases(pairs, tmp_path / "one", target=TARGET)
    assert "1 case, 1 group; scored: 1 volume in 3D." in summary_table([one]).notes


def test_groups_that_are_not_known_are_reported(tmp_path: Path) -> None:
    pairs = [(case, worse(case)) for case in cases()]
    found = evaluate_cases(pairs, tmp_path / "e", target=TARGET, grouped=False)
    assert not found.manifest.grouped
    assert any("No groups were given" in note for note in summary_table([found]).notes)


@pytest.mark.parametrize(
    "name", ["a\x1b[31mb", "a\nb", "a\x9bb\tc", "<script>x</script>", "a|b<!--"]
)
def test_names_move_no_cursor_and_make_no_tags(name: str) -> None:
    table = Table(name, (name, "p < 0.05"), ((name, "1"),), (name,))
    lines = table.markdown().split("\n")
    assert len(lines) == 8, lines
    console = Console(file=io.StringIO(), width=200)
    console.print(table.rich())
    for text in (table.markdown(), console.file.getvalue()):
        assert not set(text) & set("\x1b\x9b\t")
    assert "<s" not in table.markdown()
    assert "<!" not in table.markdown()
    assert "p < 0.05" in table.markdown()
