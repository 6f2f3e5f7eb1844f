"""`train` and `evaluate` join the rooms: scores are the protocol's, test cases are scored once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import segweave
from segweave import api
from segweave.data.formats import read_label
from segweave.data.store import Store
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.evaluation import score_case, summarise
from segweave.recipes import load_recipe
from segweave.training import Run

from .small import SETS, files_of, make_run, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    make_store(folder)
    make_run(folder, "context.name=mean", "input.slices=3")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the finished run, free to be scored."""
    return Run(shutil.copytree(made / "run", tmp_path / "run"))


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
    again = api.train(
        "demo",
        made / "store",
        tmp_path / "run",
        sets=[*SETS, "training.steps=1", "training.epochs=null"],
        seed=7,
        precision="32",
        progress=False,
    )
    assert again.recipe.seed == 7
    assert again.recipe.training.steps == 1
    with pytest.raises(UsageError, match="a Recipe object"):
        api.train(load_recipe("demo"), made / "store", tmp_path / "other", seed=1)


def test_without_a_store_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a store"):
        api.train("demo", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluate_writes_scores_and_the_label_maps_behind_them(made: Path, run: Run) -> None:
    seen: list[tuple[int, int]] = []
    found = api.evaluate(run, device="cpu", progress=lambda done, n, name: seen.append((done, n)))
    store = Store(made / "store")
    tested = store.split("70-10-20", "test")
    assert sorted({row.case for row in found.rows}) == sorted(tested)
    assert seen[-1] == (len(tested), len(tested))
    assert found.folder == run.folder / "evaluation" / "clean"
    assert found.manifest.parameters is not None
    predictor = segweave.load(run.folder, device="cpu")
    for id in tested:
        case = store.case(id)
        kept = read_label(
            run.folder / "predictions" / "clean" / f"{id}.nii.gz", case, geometry="pixdim"
        )
        assert np.array_equal(kept, segweave.predict(predictor, case).labels)
    assert summarise([found])[0].arm == "unet"


def test_test_cases_are_scored_once_under_each_protocol(run: Run, tmp_path: Path) -> None:
    api.evaluate(run, device="cpu")
    before = files_of(run.folder)
    for out in (None, tmp_path / "elsewhere"):
        with pytest.raises(UsageError, match="a second time") as caught:
            api.evaluate(run, out=out, device="cpu")
        assert "part validation" in str(caught.value)
    assert files_of(run.folder) == before
    assert not (tmp_path / "elsewhere").exists()
    api.evaluate(run, protocol="published", device="cpu")
    api.evaluate(run, force=True, device="cpu")
    ledger = json.loads((run.folder / "evaluation" / "tested.json").read_text())
    assert ledger["clean"]["times"] == 2
    assert ledger["published"]["times"] == 1


def test_validation_cases_may_be_scored_again_on_purpose(run: Run) -> None:
    first = api.evaluate(run, part="validation", device="cpu")
    assert first.folder.name == "clean-validation"
    again = api.evaluate(run, part="validation", force=True, device="cpu")
    assert [row.score for row in first.rows] == [row.score for row in again.rows]


def test_published_decides_on_the_networks_grid_and_leaves_the_ends_out(
    made: Path, run: Run
) -> None:
    from segweave.evaluation import nearest_zoom
    from segweave.prediction import network_probabilities

    api.evaluate(run, protocol="published", device="cpu")
    store = Store(made / "store")
    predictor = segweave.load(run.folder, device="cpu")
    for id in store.split("70-10-20", "test"):
        case = store.case(id)
        kept = read_label(
            run.folder / "predictions" / "published" / f"{id}.nii.gz", case, geometry="pixdim"
        )
        assert not kept[0].any()
        assert not kept[-1].any()
        for index, maps in enumerate(network_probabilities(predictor, case)):
            if 0 < index < case.slices - 1:
                by_hand = nearest_zoom(maps.argmax(0).astype(np.uint8), case.size)
                assert np.array_equal(kept[index], by_hand)


def test_a_checkpoint_by_name_is_another_arm(run: Run) -> None:
    found = api.evaluate(run, part="validation", checkpoint="last", device="cpu")
    assert {row.arm for row in found.rows} == {"unet-last"}
    assert found.folder.name == "clean-validation-last"


def test_another_store_is_refused(run: Run, tmp_path: Path) -> None:
    other = make_store(tmp_path, patients=3)
    with pytest.raises(InputError, match="checksum"):
        api.evaluate(run, store=other, device="cpu")
    assert not (run.folder / "evaluation" / "clean").exists()


def test_a_failure_while_scoring_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(run.folder)

    def fails(*_: object) -> None:
        raise SegweaveError("scoring")

    monkeypatch.setattr(api, "keep", fails)
    with pytest.raises(SegweaveError):
        api.evaluate(run, device="cpu")
    assert files_of(run.folder) == before


def test_folders_of_any_origin(made: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for path in (made / "raw").glob("*/*_gt.nii.gz"):
        shutil.copy(path, truth / path.name)
    found = api.evaluate(
        truth,
        truth,
        out=tmp_path / "scores",
        classes=["RV", "myocardium", "LV"],
        geometry="pixdim",
    )
    dice = [row.score.value for row in found.rows if row.score.metric == "dice"]
    assert set(dice) == {1.0}
    with pytest.raises(UsageError, match="a folder to write to"):
        api.evaluate(truth, truth)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"part": "tset"}, "did you mean test"),
        ({"protocol": "claen"}, "did you mean clean"),
        ({"checkpoint": "bset"}, "best"),
    ],
)
def test_wrong_names_name_the_nearest(run: Run, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(SegweaveError, match=words):
        api.evaluate(run, device="cpu", **arguments)  # type: ignore[arg-type]


def test_a_folder_that_is_no_run_needs_references(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one folder that is no run"):
        api.evaluate(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        api.evaluate(tmp_path / "absent")
