"""Training as one call: validation scores are those of prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import segweave
from segweave.cli import main
from segweave.data.case import Case
from segweave.data.store import Store
from segweave.errors import UsageError
from segweave.evaluation import read_evaluation, score_case
from segweave.recipes import load_recipe
from segweave.report.run_report import ValidatedCases
from segweave.runs.run_folder import Run
from segweave.workflow.train import _validated_cases
from tests.small import SETS


def test_train_leaves_a_finished_run_that_names_its_store(made: Path) -> None:
    run = Run(made / "run")
    assert run.finished
    assert run.recipe.data.store == str((made / "store").absolute())
    assert run.recipe.context is not None
    scored = [row for row in run.metrics if "validation_dice" in row]
    assert len(scored) == 1
    assert 0 <= scored[0]["validation_dice"] <= 1


def test_the_validation_score_is_that_of_predicting_the_cases_by_hand(made: Path) -> None:
    run = Run(made / "run")
    store = Store(made / "store")
    predictor = segweave.load(made / "run", device="cpu")
    values: dict[str, list[float]] = {}
    for id in store.split("70-10-20", "valid"):
        case = store.case(id)
        labels = segweave.predict(predictor, case).labels
        for score in score_case(
            labels,
            np.asarray(case.label),
            target=store.target,
            spacing=case.spacing,
            stack=case.stack,
            protocol="clean",
        ):
            if score.metric == "dice" and score.value is not None:
                values.setdefault(score.class_name, []).append(score.value)
    by_hand = np.mean([np.mean(own) for own in values.values()])
    recorded = next(row for row in run.metrics if "validation_dice" in row)["validation_dice"]
    assert recorded == pytest.approx(by_hand, abs=1e-6)


def test_overrides_reach_the_recipe(made: Path, tmp_path: Path) -> None:
    again = segweave.train(
        "demo",
        made / "store",
        tmp_path / "run",
        sets=[*SETS, "training.steps=1", "training.epochs=null"],
        seed=7,
        precision="32",
    )
    assert again.recipe.seed == 7
    assert again.recipe.training.steps == 1
    with pytest.raises(UsageError, match="a Recipe object"):
        segweave.train(load_recipe("demo"), made / "store", tmp_path / "other", seed=1)


def test_a_fold_is_trained_and_tested_on_its_own_parts(made: Path, tmp_path: Path) -> None:
    folded = segweave.train(
        "demo", made / "store", tmp_path / "run", sets=SETS, fold=2, device="cpu"
    )
    assert (folded.recipe.fold, folded.recipe.data.split) == (2, "fold-{fold}")
    store = Store(made / "store")
    done = segweave.evaluate(folded, device="cpu")
    rows = read_evaluation(done.folder).rows
    assert {row.case for row in rows} == set(store.split("fold-2", "test"))
    assert {row.fold for row in rows} == {2}
    with pytest.raises(UsageError, match="fold-7"):
        segweave.train("demo", made / "store", tmp_path / "other", sets=SETS, fold=7)


def test_without_a_store_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a store"):
        segweave.train("demo", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_the_report_takes_the_scores_of_the_pass_that_validated_the_model(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str
) -> None:
    shown: list[Callable[[], ValidatedCases | None]] = []
    monkeypatch.setattr("segweave.workflow.train.update_report", lambda run, v: shown.append(v))
    sets = [*SETS, "training.epochs=3", "training.validate_every=1", "training.batch_size=2"]
    sets.append(f"training.checkpoint={checkpoint}")
    out = tmp_path / "run"
    run = segweave.train("demo", made / "store", out, sets=sets, device="cpu")
    asked: list[Case] = []
    monkeypatch.setattr(
        "segweave.workflow.train.Session.predict", lambda self, case: asked.append(case)
    )
    validated = shown[0]()
    assert validated is not None
    assert asked == []
    monkeypatch.undo()
    anew = _validated_cases(run, Store(made / "store"), "cpu")  # as after an interruption
    assert anew is not None
    assert dict(validated.values) == pytest.approx(dict(anew.values), abs=1e-6)
    passes = [row["validation_dice"] for row in run.metrics if "validation_dice" in row]
    assert len({*passes}) == 3


def test_a_training_killed_before_its_report_leaves_nothing_behind(
    made: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.layout.report.unlink()
    leftovers = [run.folder / ".writing-a.html", run.layout.checkpoints / ".writing-b"]
    for path in leftovers:
        path.write_text("half")
    weights = (run.layout.model / "weights.safetensors").read_bytes()
    command = ["train", "demo", "--store", made / "store", "--out", run.folder, "--device", "cpu"]
    command += [part for text in (*SETS, "context.name=mean", "input.slices=3")
                for part in ("--set", text)]  # fmt: skip
    for words in ("no training is done", "nothing was done"):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in command])
        assert left.value.code in (0, None)
        assert words in "".join(capsys.readouterr())
        assert "Validation cases" in run.layout.report.read_text(encoding="utf-8")
        assert not [path for path in leftovers if path.exists()]
    assert (run.layout.model / "weights.safetensors").read_bytes() == weights
    leftovers[0].write_text("half")  # of an evaluation's report
    segweave.evaluate(run, part="validation", device="cpu")
    assert not leftovers[0].exists()
