"""Scoring a run: scores are those of the protocol, label maps are kept, other stores work too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segweave
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.evaluation import summarise, summary_table
from segweave.formats import read_label
from segweave.metrics.calibration import brier_score
from segweave.runs.run_folder import Run
from tests.small import files_of, make_store

CLASSES = ("background", "right ventricle", "myocardium", "left ventricle")


def test_evaluate_writes_scores_and_the_label_maps_behind_them(made: Path, run: Run) -> None:
    seen: list[tuple[int, int]] = []
    found = segweave.evaluate(
        run, device="cpu", progress=lambda done, n, name: seen.append((done, n))
    )
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
    assert summarise([found])[0].arm == "unet+mean"


def test_validation_cases_may_be_scored_again(run: Run, tmp_path: Path) -> None:
    for out in (None, tmp_path / "scores"):
        first = segweave.evaluate(run, part="validation", out=out, device="cpu")
        again = segweave.evaluate(run, part="validation", out=out, device="cpu")
        assert first.folder == again.folder == (out or run.folder / "evaluation/clean-validation")
        assert [row.score for row in first.rows] == [row.score for row in again.rows]
        assert again.manifest.tested == {}


def test_published_decides_on_the_networks_grid_and_leaves_the_ends_out(
    made: Path, run: Run
) -> None:
    from segweave.evaluation import nearest_zoom

    segweave.evaluate(run, protocol="published", device="cpu")
    store = Store(made / "store")
    predictor = segweave.load(run.folder, device="cpu")
    for id in store.split("70-10-20", "test"):
        case = store.case(id)
        kept = read_label(
            run.folder / "predictions" / "published" / f"{id}.nii.gz", case, geometry="pixdim"
        )
        assert not kept[0].any()
        assert not kept[-1].any()
        for index, maps in enumerate(predictor.session().network_probabilities(case)):
            if 0 < index < case.slices - 1:
                by_hand = nearest_zoom(maps.argmax(0).astype(np.uint8), case.size)
                assert np.array_equal(kept[index], by_hand)


def test_a_failure_while_scoring_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(run.folder)

    def fails(*_: object, **__: object) -> None:
        raise SegweaveError("scoring")

    monkeypatch.setattr("segweave.workflow.evaluate.keep", fails)
    with pytest.raises(SegweaveError):
        segweave.evaluate(run, device="cpu")
    assert files_of(run.folder) == before


def test_one_process_at_a_time_scores_a_run_and_leftovers_go(run: Run) -> None:
    for folder in ("predictions", "evaluation"):
        left = run.folder / folder / ".writing-abc"
        left.mkdir(parents=True)
        (left / "half").write_text("x")

    def again(*_: object) -> None:
        with pytest.raises(UsageError, match="another process is writing"):
            segweave.evaluate(run, part="validation", device="cpu")

    segweave.evaluate(run, device="cpu", progress=again)
    assert not [path for path in run.folder.rglob(".*") if path.name != ".lock"]
    segweave.evaluate(run, part="validation", device="cpu")


def test_a_run_that_cannot_be_written_is_scored_elsewhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("evaluate", "evaluation_plan"):
        monkeypatch.setattr(
            f"segweave.workflow.{module}.can_write",
            lambda folder: run.folder.resolve() not in [Path(folder), *Path(folder).parents],
        )
    before = files_of(run.folder)
    for part in ("test", "validation"):
        with pytest.raises(SegweaveError, match="--out FOLDER") as caught:
            segweave.evaluate(run, part=part, device="cpu")
        assert caught.value.exit_code == 1
        out = tmp_path / part
        found = segweave.evaluate(run, part=part, out=out, device="cpu")
        maps = sorted(path.name for path in (out / "predictions").iterdir())
        assert maps == sorted({f"{row.case}.nii.gz" for row in found.rows})
        assert found.manifest.sources["predictions"] == str(out / "predictions")
        segweave.evaluate(run, part=part, out=out, force=True, device="cpu")
    assert "does not note that its test cases were scored" in caplog.text
    assert files_of(run.folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "test", "validation"]


def test_a_report_that_fails_takes_no_scores_away(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no figure")

    monkeypatch.setattr("segweave.workflow.evaluate.write_report", fails)
    assert segweave.evaluate(run, device="cpu").rows
    assert "no figure" in caplog.text


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
        segweave.evaluate(run, device="cpu", **arguments)  # type: ignore[arg-type]


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        segweave.evaluate(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        segweave.evaluate(tmp_path / "absent")


def test_tables_say_where_a_store_does_not_know_groups(
    made: Path, run: Run, tmp_path: Path
) -> None:
    store = shutil.copytree(made / "store", tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    manifest["grouped"] = False
    (store / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = segweave.evaluate(run, store=store, part="validation", device="cpu")
    assert not found.manifest.grouped
    assert any("No groups were given" in note for note in summary_table([found]).notes)


def test_an_evaluation_says_on_how_many_groups_the_run_was_trained(made: Path, run: Run) -> None:
    store = Store(made / "store")
    groups = {store.groups[id] for id in store.split("70-10-20", "train")}
    assert len(groups) < len(store.ids)
    found = segweave.evaluate(run, part="validation", device="cpu")
    assert found.manifest.training_groups == len(groups)


def test_an_evaluation_states_the_margin_that_was_fixed_before_the_training(
    made: Path, run: Run
) -> None:
    assert segweave.evaluate(run, part="validation", device="cpu").manifest.margin is None
    recipe = run.folder / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    assert "margin: null" in text
    text = text.replace("margin: null", "margin: 0.01").replace(
        "margin_reason: ''", "margin_reason: readers differ by 0.02"
    )
    recipe.write_text(text, encoding="utf-8")
    stated = segweave.evaluate(Run(run.folder), part="validation", device="cpu").manifest
    assert (stated.margin, stated.margin_reason) == (0.01, "readers differ by 0.02")


def test_metrics_beside_those_of_the_protocol(made: Path, run: Run) -> None:
    names = ("nsd", "brier", "dice")
    options: dict[str, Any] = {"part": "validation", "device": "cpu", "metrics": names}
    found = segweave.evaluate(run, **options)
    store = Store(made / "store")
    session = segweave.load(run.folder, device="cpu").session()
    ids = {row.case for row in found.rows}
    assert ids == set(store.split("70-10-20", "valid"))
    for id in ids:
        case = store.case(id)
        prediction = session.predict(case, probabilities=True)
        assert prediction.probabilities is not None
        by_hand = brier_score(prediction.probabilities, np.asarray(case.label))
        (row,) = (r for r in found.rows if r.case == id and r.score.metric == "brier")
        assert row.score.value == pytest.approx(by_hand, abs=1e-6)
    assert {"nsd", "brier"} <= {row.score.metric for row in found.rows}
    assert "Brier" in summary_table([found]).markdown()
    # The same under a protocol that decides on the network's grid.
    published = segweave.evaluate(run, **options, protocol="published")
    values = [
        [row.score.value for row in evaluation.rows if row.score.metric == "brier"]
        for evaluation in (found, published)
    ]
    assert values[0] == values[1] != []


def test_a_metric_that_cannot_be_computed_is_refused_first(run: Run) -> None:
    before = files_of(run.folder)
    for name, words in (("brierr", "did you mean brier"), ("psnr", "compares two images")):
        with pytest.raises(UsageError, match=words):
            segweave.evaluate(run, metrics=[name], device="cpu")
    assert files_of(run.folder) == before


# Other stores


def other_store(folder: Path, name: str, offset: int = 0, **changes: Any) -> Path:
    """Two cases of noise with the classes of the run's store, none of them in a split."""
    target = TargetSpec(**{"names": CLASSES, **changes})
    random = np.random.default_rng(offset)
    with StoreWriter(folder / name, name, target) as writer:
        for number in range(2):
            label = random.integers(0, len(target.names), (3, 20, 24)).astype(np.uint8)
            writer.add(
                Case(
                    f"case{number}",
                    f"patient{number + offset:03}",
                    random.normal(size=(3, 1, 20, 24)).astype(np.float32),
                    label=label,
                    stack="space",
                    spacing=(8.0, 1.5, 1.5),
                )
            )
        writer.finish({})
    return folder / name


def test_a_run_is_scored_on_another_store(run: Run, tmp_path: Path) -> None:
    other = other_store(tmp_path, "clinic/b")
    first = segweave.evaluate(run, store=other, part="all", device="cpu")
    assert first.folder == run.folder / "evaluation" / "clean-on-clinic%2Fb-all"
    assert {row.case for row in first.rows} == {"case0", "case1"}
    assert first.manifest.sources["store"] == Store(other).checksum
    assert {row.arm for row in first.rows} == {"unet+mean"}
    kept = Path(first.manifest.sources["predictions"])
    assert sorted(path.stem for path in kept.iterdir()) == ["case0", "case1"]
    # The ledger counts each store separately, also two of one name.
    segweave.evaluate(run, device="cpu")
    with pytest.raises(UsageError, match="a second time"):
        segweave.evaluate(run, store=other, part="all", flips="rows", device="cpu")
    (tmp_path / "two").mkdir()
    namesake = other_store(tmp_path / "two", "clinic/b", offset=7)
    options: dict[str, Any] = {"store": namesake, "part": "all", "device": "cpu"}
    with pytest.raises(UsageError, match="an empty or a new folder"):
        segweave.evaluate(run, **options)
    second = segweave.evaluate(run, out=tmp_path / "second", **options)
    assert list(second.manifest.tested.values()) == [1]
    ledger = json.loads((run.folder / "evaluation" / "tested.json").read_text())
    assert len(ledger) == 3


def test_another_store_without_the_part_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--part all"):
        segweave.evaluate(run, store=other_store(tmp_path, "other"), device="cpu")


def test_another_store_with_other_classes_is_refused(run: Run, tmp_path: Path) -> None:
    other = other_store(tmp_path, "other", names=("background", "liver"))
    with pytest.raises(UsageError, match="the classes that the run was trained on"):
        segweave.evaluate(run, store=other, part="all", device="cpu")


def test_training_cases_in_another_store_are_refused_unless_named_so(
    made: Path, run: Run, tmp_path: Path
) -> None:
    # More patients of the same data set: the split differs, the first patients are the same.
    other = make_store(tmp_path, patients=5)
    with pytest.raises(UsageError, match="did not learn from") as caught:
        segweave.evaluate(run, store=other, part="all", device="cpu")
    assert "--part training" in str(caught.value)
    found = segweave.evaluate(run, store=other, part="training", device="cpu")
    assert found.folder.name == "clean-on-acdc-training"
    # Under another name they are recognised by their content, where the run's store is there.
    renamed = renamed_store(made / "store", tmp_path / "renamed")
    with pytest.raises(UsageError, match="did not learn from"):
        segweave.evaluate(run, store=renamed, part="all", device="cpu")


def renamed_store(source: Path, path: Path) -> Path:
    store = Store(source)
    with StoreWriter(path, "renamed", store.target) as writer:
        for id in store.ids:
            writer.add(store.case(id))
        writer.finish({})
    return path


def test_all_cases_of_the_own_store_include_test_cases(made: Path, run: Run) -> None:
    found = segweave.evaluate(run, part="all", device="cpu")
    assert found.folder.name == "clean-all"
    assert {row.case for row in found.rows} == set(Store(made / "store").ids)
    with pytest.raises(UsageError, match="a second time"):
        segweave.evaluate(run, device="cpu")


def test_a_store_that_changed_is_refused(made: Path, run: Run, tmp_path: Path) -> None:
    changed = make_store(tmp_path, patients=3)
    recipe = run.folder / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace(str(made / "store"), str(changed)), encoding="utf-8")
    with pytest.raises(InputError, match="checksum"):
        segweave.evaluate(run, device="cpu")
    assert not (run.folder / "evaluation" / "clean").exists()
