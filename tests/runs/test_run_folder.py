"""The layout of a run folder, and what a reader says of a run that is not whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import segweave
from segweave.errors import InputError, UsageError
from segweave.runs import run_folder
from segweave.runs.run_folder import Run, RunLayout

RECIPE = "network: {name: unet}\ntraining: {epochs: 1}\n"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
    return tmp_path


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="an empty folder"):
        Run(tmp_path)
    assert not RunLayout(tmp_path).started


def test_a_run_that_has_not_ended(begun: Path) -> None:
    run = Run(begun)
    assert RunLayout(begun).started
    assert not run.finished
    for read in (lambda: run.model_card, lambda: run.model, lambda: run.weights()):
        with pytest.raises(InputError, match=r"reached step 2[\s\S]*goes on where it stopped"):
            read()
    assert run.report is None
    assert run.checkpoints == {}
    with pytest.raises(UsageError, match="there is none yet"):
        run.weights("last")


def test_a_finished_run(begun: Path) -> None:
    run = Run(begun)
    run.layout.model.mkdir()
    run.layout.card.write_text('{"format": 1, "title": "unet"}')
    run.layout.report.write_text("<html>")
    run.layout.checkpoints.mkdir()
    for name in ("last", "best"):
        run.layout.checkpoint(name).write_bytes(b"")
    assert run.finished
    assert run.model_card["title"] == "unet"
    assert run.model == begun / "model"
    assert run.report == begun / "report.html"
    assert run.checkpoints == {n: begun / "checkpoints" / f"{n}.ckpt" for n in ("best", "last")}
    with pytest.raises(UsageError, match="did you mean last"):
        run.weights("lst")


def test_every_path_is_below_the_folder_and_none_is_given_twice(tmp_path: Path) -> None:
    run = RunLayout(tmp_path)
    names = [name for name, value in vars(RunLayout).items() if isinstance(value, property)]
    paths = [getattr(run, name) for name in names]
    paths = [path for path in paths if isinstance(path, Path)]
    paths += [run.checkpoint("last"), run.evaluation("clean"), run.predictions("clean")]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert len(set(paths)) == len(paths)
    assert not any(path.exists() for path in paths), "a layout makes nothing"


def test_names_of_a_run_folder_are_written_in_one_place() -> None:
    names = [
        run_folder.RECIPE,
        run_folder.ENVIRONMENT,
        run_folder.METRICS,
        run_folder.LEDGER,
        run_folder.REPORT,
    ]
    pattern = re.compile("|".join(re.escape(f'"{name}"') for name in names))
    source = Path(segweave.__file__).parent
    found = [
        f"{file.relative_to(source)}: {line.strip()}"
        for file in sorted(source.rglob("*.py"))
        if file != Path(run_folder.__file__)
        for line in file.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert not found
