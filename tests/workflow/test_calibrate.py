"""Calibrating a run, and scoring it with its temperature."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import segweave
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import UsageError
from segweave.prediction import load, load_ensemble
from segweave.runs.run_folder import Run
from segweave.storage import read_json
from segweave.workflow.calibrate import calibrate
from segweave.workflow.rank import rank
from tests.small import files_of, make_run, make_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a run that learned enough to be wrong in some voxels only."""
    folder = tmp_path_factory.mktemp("calibrate")
    make_store(folder)
    make_run(folder, "training.epochs=6", "network.options.width=3")
    return folder


def test_a_run_is_calibrated_once_and_scored_with_it(
    made: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        # Its report is not looked at.
        patched.setattr("segweave.workflow.evaluate.update_report", lambda run: None)
        before = segweave.evaluate(run, part="validation", metrics=["nll"], device="cpu")
    assert before.folder.name == "clean-validation"
    weights = run.layout.weights.read_bytes()
    found = calibrate(run, device="cpu", voxels=2000)
    # Fitted on the validation cases alone, and on a bounded sample.
    store = Store(made / "store")
    assert found.cases == len(run.recipe.choose_parts(store)["validation"])
    assert found.voxels <= 2000
    assert found.nll[1] < found.nll[0]
    assert run.layout.weights.read_bytes() == weights
    (entry,) = run.model_card["temperatures"]
    assert entry["temperature"] == found.temperature == load(run.folder, device="cpu").temperature
    assert entry["nll"] == {"before": round(found.nll[0], 6), "after": round(found.nll[1], 6)}
    # The whole volumes agree with the sample.
    after = segweave.evaluate(
        run, part="validation", metrics=["nll"], calibration=True, device="cpu"
    )
    assert after.folder.name == "clean-validation-temperature"
    assert after.manifest.sources["temperature"] == f"{found.temperature:g}"
    assert after.manifest.recipe_digest != before.manifest.recipe_digest
    curves = read_json(after.folder / "calibration.json", "test", formats=(1,))
    assert curves["after"]["nll"] < curves["before"]["nll"]
    assert curves["before"]["nll"] == pytest.approx(found.nll[0], rel=0.2)
    # Means over cases of one size are those over voxels; labels are the same.
    values = [
        np.mean([row.score.value for row in one.rows if row.score.metric == "nll"])
        for one in (before, after)
    ]
    assert values == pytest.approx([curves[s]["nll"] for s in ("before", "after")], rel=0.05)
    dice = [[r.score for r in one.rows if r.score.metric == "dice"] for one in (before, after)]
    assert dice[0] == dice[1]
    text = run.layout.report.read_text(encoding="utf-8")
    assert "Calibration, clean-validation-temperature" in text
    assert f"The temperature is {found.temperature:g}" in text
    # Refused, it is the evaluation of before; label metrics alone never ask for it.
    monkeypatch.setattr("segweave.workflow.evaluate.update_report", lambda run: None)
    refused = segweave.evaluate(
        run, part="validation", metrics=["nll"], calibrated=False, device="cpu"
    )
    assert refused.folder == before.folder
    assert [r.score for r in refused.rows] == [r.score for r in before.rows]
    # Again: only where it is meant, and the same.
    kept = files_of(run.folder)
    with pytest.raises(UsageError, match=f"the temperature {found.temperature:g}, fitted before"):
        calibrate(run, device="cpu")
    assert files_of(run.folder) == kept
    again = calibrate(run, device="cpu", voxels=2000, force=True)
    assert again == found
    assert len(run.model_card["temperatures"]) == 1


def test_an_average_has_a_temperature_of_its_own(run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(run.folder, tmp_path / "other"))
    _change_weights(other)
    found = calibrate(run, members=[other], flips="rows", device="cpu", voxels=1000)
    paths = [run.folder, other.folder]
    # Whatever the order of the members; not for one of them, nor without flips.
    for order in (paths, paths[::-1]):
        assert load_ensemble(order, flips="rows", device="cpu").temperature == found.temperature
    assert load_ensemble(paths, device="cpu").temperature is None
    assert load(run.folder, device="cpu").temperature is None
    assert "temperatures" not in other.model_card
    # A member that learned from the validation cases would be too sure of them.
    card = other.model_card
    card["training_data"]["groups"] += card["training_data"]["validation_groups"]
    other.layout.card.write_text(json.dumps(card))
    with pytest.raises(UsageError, match="did not learn from the validation cases"):
        calibrate(run, members=[other], device="cpu")


def test_what_can_not_be_calibrated_is_refused(made: Path, run: Run, tmp_path: Path) -> None:
    # A model folder knows its training data, but not where its store is.
    model = shutil.copytree(run.model, tmp_path / "model")
    card = json.loads((model / "card.json").read_text())
    card["recipe"]["data"]["store"] = None
    (model / "card.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match=r"give the store \(--store\)"):
        calibrate(model, device="cpu")
    assert calibrate(model, store=made / "store", device="cpu", voxels=500).temperature > 0
    # Another store, and no validation cases.
    make_store(tmp_path / "more", patients=5)
    with pytest.raises(UsageError, match="which is another"):
        calibrate(run, store=tmp_path / "more" / "store", device="cpu")
    text = run.layout.recipe.read_text()
    assert "validation: valid" in text
    run.layout.recipe.write_text(text.replace("validation: valid", "validation: null"))
    with pytest.raises(UsageError, match="never fitted on training or test cases"):
        calibrate(run, device="cpu")


def test_rank_lists_what_has_no_label(made: Path, run: Run, tmp_path: Path) -> None:
    store = Store(made / "store")
    with StoreWriter(tmp_path / "new", "clinic", store.target) as writer:
        for number, id in enumerate(store.ids[:4]):
            case = replace(store.case(id), id=f"new{number}", group=f"g{number // 2}")
            noise = np.random.default_rng(number).normal(0, 30 * number, case.image.shape)
            image = (case.image + noise).astype(np.float32)
            kept = case.label if number == 3 else None
            changed = replace(case, image=image, label=kept)
            writer.add(changed, labelled=number == 3)
        writer.finish()
    found = rank(tmp_path / "new", [run], tmp_path / "out", diverse=True, pictures=2, device="cpu")
    assert {one.case for one in found.cases} == {"new0", "new1", "new2"}
    assert (found.labelled, found.known, found.failures) == (1, 0, {})
    content = read_json(tmp_path / "out" / "rank.json", "test", formats=(1,))
    assert [row["case"] for row in content["cases"]] == [one.case for one in found.cases]
    assert [row["rank"] for row in content["cases"]] == [1, 2, 3]
    assert found.cases[0].score == max(one.score for one in found.cases)
    lines = (tmp_path / "out" / "rank.csv").read_text().splitlines()
    assert lines[0].startswith("rank,case,group,file,score")
    assert lines[1].startswith(f"1,{found.cases[0].case},")
    assert found.page is not None
    page = found.page.read_text(encoding="utf-8")
    assert page.count("<figure>") == 2
    # A second list only where it is meant; the labelled case only when asked for.
    with pytest.raises(UsageError, match=r"rank\.csv"):
        rank(tmp_path / "new", [run], tmp_path / "out", device="cpu")
    more = rank(
        tmp_path / "new",
        [run],
        tmp_path / "out",
        by="mutual-information",
        flips="rows",
        labelled=True,
        pictures=0,
        force=True,
        device="cpu",
    )
    assert len(more.cases) == 4
    scores = [one.score for one in more.cases]
    assert scores == sorted(scores, reverse=True)
    # Of the run's own store everything is known, labelled or not.
    with pytest.raises(UsageError, match="that the runs know"):
        rank(made / "store", [run], tmp_path / "none", labelled=True, device="cpu")
    assert not (tmp_path / "none").exists()


def test_rank_reads_a_folder(made: Path, run: Run, tmp_path: Path) -> None:
    images = sorted((made / "raw").rglob("*frame*.nii.gz"))
    labels = [path for path in images if path.name.endswith("_gt.nii.gz")]
    folder = tmp_path / "in"
    folder.mkdir()
    for path in [p for p in images if p not in labels][:2]:
        shutil.copy(path, folder)
    shutil.copy(labels[0], folder)
    (folder / "broken.nii.gz").write_bytes(b"not an image")
    found = rank(folder, [run], tmp_path / "out", pictures=0, geometry="pixdim", device="cpu")
    assert len(found.cases) == 1
    assert found.labelled == 1
    assert [Path(name).name for name in found.failures] == ["broken.nii.gz"]
    assert found.cases[0].file is not None
    assert found.cases[0].file.parent == folder


def _change_weights(run: Run) -> None:
    """Make another model of the run: every bias moved a little."""
    weights = load_file(run.layout.weights)
    changed = {n: w + 0.05 if n.endswith("bias") else w for n, w in weights.items()}
    save_file(changed, run.layout.weights)
    digest = hashlib.sha256(run.layout.weights.read_bytes()).hexdigest()
    run.layout.card.write_text(json.dumps({**run.model_card, "weights_sha256": digest}))
