"""`train` and `evaluate` join the rooms: scores are the protocol's, test cases are scored once."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segweave
from segweave.data.store import Store
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.evaluation import read_evaluation, score_case, summarise, summary_table
from segweave.formats import read_label
from segweave.prediction import Tiles
from segweave.recipes import load_recipe
from segweave.training import Run
from segweave.workflow import api
from tests.small import SETS, files_of, make_run, make_store


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


def test_a_fold_is_trained_and_tested_on_its_own_parts(made: Path, tmp_path: Path) -> None:
    folded = api.train(
        "demo", made / "store", tmp_path / "run", sets=SETS, fold=2, progress=False, device="cpu"
    )
    assert (folded.recipe.fold, folded.recipe.data.split) == (2, "fold-{fold}")
    store = Store(made / "store")
    done = api.evaluate(folded, device="cpu")
    rows = read_evaluation(done.folder).rows
    assert {row.case for row in rows} == set(store.split("fold-2", "test"))
    assert {row.fold for row in rows} == {2}
    with pytest.raises(UsageError, match="fold-7"):
        api.train("demo", made / "store", tmp_path / "other", sets=SETS, fold=7, progress=False)


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


def test_no_variant_is_scored_on_test_cases_after_another(made: Path, run: Run) -> None:
    first = api.evaluate(run, device="cpu")
    assert first.manifest.tested == {"clean": 1}
    assert not any("more than once" in note for note in summary_table([first]).notes)
    variants: list[dict[str, Any]] = [{"checkpoint": "last"}, {"flips": "both"}, {"tiles": Tiles()}]
    for variant in [*variants, {"members": [made / "run"]}]:
        with pytest.raises(UsageError, match=r"scores \(clean\)") as caught:
            api.evaluate(run, device="cpu", **variant)
        assert "--part validation" in str(caught.value)
    forced = api.evaluate(run, flips="both", force=True, device="cpu")
    assert forced.manifest.tested == {"clean": 1, "clean-flips-both": 1}
    (note,) = (note for note in summary_table([forced]).notes if "more than once" in note)
    assert "unet-flips-both, seed 0: 2 times (clean 1×, clean-flips-both 1×)" in note


def test_an_average_counts_for_each_of_its_runs(made: Path, run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(made / "run", tmp_path / "other"))
    api.evaluate(run, members=[other], device="cpu")
    for again in (run, other):
        with pytest.raises(UsageError, match="a second time"):
            api.evaluate(again, device="cpu")


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("clean", "clean"), ("clean-mean-of-2", "clean"), ("published-flips-both", "published")],
)
def test_older_ledgers_are_understood(run: Run, name: str, protocol: str) -> None:
    entry = {"when": "2026-01-01T00:00:00+00:00", "folder": "x", "times": 2}
    (run.folder / "evaluation").mkdir()
    (run.folder / "evaluation" / "tested.json").write_text(json.dumps({name: entry}))
    with pytest.raises(UsageError, match="a second time"):
        api.evaluate(run, protocol=protocol, device="cpu")
    found = api.evaluate(run, protocol=protocol, force=True, device="cpu")
    assert sum(found.manifest.tested.values()) == 3
    assert found.manifest.tested[name] >= 2


def test_the_checkpoint_chosen_on_test_cases_stands_beside_the_last(run: Run) -> None:
    entry = {"when": "2026-01-01T00:00:00+00:00", "folder": "x", "times": 1}
    (run.folder / "evaluation").mkdir()
    ledger = run.folder / "evaluation" / "tested.json"
    ledger.write_text(json.dumps({"published-best-on-test": entry}))
    found = api.evaluate(run, protocol="published", device="cpu")
    assert found.manifest.tested == {"published": 1}


def test_a_ledger_of_another_kind_is_told(run: Run) -> None:
    (run.folder / "evaluation").mkdir()
    (run.folder / "evaluation" / "tested.json").write_text('["clean"]')
    with pytest.raises(InputError, match=r"tested\.json"):
        api.evaluate(run, device="cpu")


def test_validation_cases_are_scored_as_often_as_one_likes(run: Run, tmp_path: Path) -> None:
    for out in (None, tmp_path / "scores"):
        first = api.evaluate(run, part="validation", out=out, device="cpu")
        again = api.evaluate(run, part="validation", out=out, device="cpu")
        assert first.folder == again.folder == (out or run.folder / "evaluation/clean-validation")
        assert [row.score for row in first.rows] == [row.score for row in again.rows]
        assert again.manifest.tested == {}


def test_only_an_evaluation_of_the_run_itself_is_replaced(
    made: Path, run: Run, tmp_path: Path
) -> None:
    other = Run(shutil.copytree(made / "run", tmp_path / "other"))
    foreign, tested, alien = (tmp_path / name for name in ("foreign", "tested", "alien"))
    api.evaluate(other, part="validation", out=foreign, device="cpu")
    api.evaluate(run, out=tested, device="cpu")
    alien.mkdir()
    (alien / "manifest.json").write_text("{}")
    # Another model's evaluation, though it lies where this run's would.
    moved = shutil.copytree(foreign, run.folder / "evaluation" / "clean-validation")
    told = json.loads((moved / "manifest.json").read_text())
    told["sources"]["model"] = "0" * 64
    (moved / "manifest.json").write_text(json.dumps(told))
    for folder in (foreign, tested, alien, moved):
        before = files_of(folder)
        with pytest.raises(UsageError, match="an empty or a new folder"):
            api.evaluate(run, part="validation", out=folder, device="cpu")
        assert files_of(folder) == before


def test_label_maps_belong_to_the_evaluation_they_were_scored_for(
    made: Path, run: Run, tmp_path: Path
) -> None:
    runs = {name: Run(shutil.copytree(run.folder, tmp_path / name)) for name in ("b", "c")}
    for number, one in enumerate(runs.values()):
        _disturb(one, number)
    options: dict[str, Any] = {"part": "validation", "device": "cpu"}
    own = api.evaluate(run, members=[runs["b"]], **options)
    kept = Path(own.manifest.sources["predictions"])
    assert kept == run.folder / "predictions" / own.folder.name
    before = files_of(kept)
    assert before
    # The other average has a name of its own, here and elsewhere.
    other = api.evaluate(run, members=[runs["c"]], **options)
    assert other.folder != own.folder
    assert {row.arm for row in other.rows} == {"unet-mean-of-2-seeds-0-0"}
    away = api.evaluate(run, members=[runs["b"]], out=tmp_path / "away", **options)
    places = {evaluation.manifest.sources["predictions"] for evaluation in (own, other, away)}
    assert len(places) == 3
    assert all(any(Path(place).iterdir()) for place in places)
    assert files_of(kept) == before
    # The order of the members does not matter, nor where they lie.
    shutil.copytree(runs["b"].folder, tmp_path / "d")
    again = api.evaluate(tmp_path / "d", members=[run], **options)
    assert again.folder.name == own.folder.name


def _disturb(run: Run, number: int) -> None:
    """Make another model of the run: one bias moved, by `number`."""
    from safetensors.torch import load_file, save_file

    file = run.model / "weights.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if name.endswith("bias"))
    weights[name] = weights[name] + 0.1 * (number + 1)
    save_file(weights, file)
    card = {**run.model_card, "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (run.model / "card.json").write_text(json.dumps(card))


def test_an_evaluation_says_on_how_many_groups_the_run_was_trained(made: Path, run: Run) -> None:
    store = Store(made / "store")
    groups = {store.groups[id] for id in store.split("70-10-20", "train")}
    assert len(groups) < len(store.ids)
    found = api.evaluate(run, part="validation", device="cpu")
    assert found.manifest.training_groups == len(groups)


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


def test_groups_that_a_store_does_not_know_are_said_in_its_tables(
    made: Path, run: Run, tmp_path: Path
) -> None:
    store = shutil.copytree(made / "store", tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    manifest["grouped"] = False
    (store / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = api.evaluate(run, store=store, part="validation", device="cpu")
    assert not found.manifest.grouped
    assert any("No groups were given" in note for note in summary_table([found]).notes)


@pytest.mark.parametrize("given", [{"stack": "time"}, {"classes": ["a"]}, {"cases": "table.csv"}])
def test_what_belongs_to_label_maps_is_refused_for_a_run(run: Run, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="belong to a folder of label maps"):
        api.evaluate(run, device="cpu", **given)
