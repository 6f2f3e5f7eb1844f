"""The demo runs, continues, warns, and every number in it comes from its own runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from segweave.demo import ARMS, HEADING, QUICK, run_demo
from segweave.errors import SegweaveError, UsageError
from segweave.evaluation import read_evaluation, summarise
from tests.small import files_of


@pytest.mark.slow
def test_the_whole_demo_in_miniature(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = run_demo(out, quick=True, arms=("unet", "sa-lstm"))
    text = (out / "table.md").read_text(encoding="utf-8")
    assert text.startswith(f"## {HEADING}")
    assert "not evidence" in HEADING
    for protocol in ("clean", "published"):
        assert f"Protocol {protocol}" in text
        for arm in ("unet", "sa-lstm"):
            folder = out / "runs" / arm / "evaluation" / protocol
            dice = summarise([read_evaluation(folder)])[0].macro.overlaps["dice"].mean
            assert re.search(rf"\| {arm} \| {dice:.4f}", text)
    with Image.open(done.figure) as picture:
        assert picture.size[0] > 600
    assert (done.examples / "heart.nii.gz").is_file()
    page = done.report.read_text(encoding="utf-8")
    assert HEADING in page
    assert page.count("data:image/png;base64,") >= 4
    # A second call makes nothing anew but figure, table and report.
    runs = files_of(out / "runs")
    again = run_demo(out, quick=True, arms=("unet", "sa-lstm"))
    assert again.markdown == done.markdown
    assert files_of(out / "runs") == runs


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        run_demo(tmp_path, quick=True)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_demo_of_another_size_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"format": 1, "patients": 99}')
    with pytest.raises(UsageError, match="another size"):
        run_demo(tmp_path, quick=True)


@pytest.mark.slow
def test_a_training_that_fails_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "unet", ("training.epochz=1",))
    with pytest.raises(SegweaveError, match="training the arm unet") as caught:
        run_demo(tmp_path / "demo", settings=QUICK, arms=("unet",))
    assert "did you mean epochs" in str(caught.value)
