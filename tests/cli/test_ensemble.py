"""`--with`, `--flips` and `--tiles` of predict and evaluate; the lines of `grid --dry-run`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

import segweave
from segweave.evaluation import read_evaluation
from segweave.formats import read_case
from segweave.prediction import Ensemble
from tests.small import make_run, make_store, write_volume

from .conftest import Command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    make_store(folder)
    make_run(folder, name="a")
    make_run(folder, "seed=1", name="b")
    # Learned from the test cases of the others.
    make_run(folder, "data.training=test", "data.test=train", name="turned")
    return folder


def test_runs_are_scored_together_as_a_separate_arm(command: Command, made: Path) -> None:
    words = ["evaluate", made / "a", "--with", made / "b", "--flips", "rows", "--quiet"]
    seen = command(*words, "--device", "cpu")
    assert seen.code == 0, seen.err
    (folder,) = (made / "a" / "evaluation").glob("clean-mean-of-2-*-flips-rows")
    found = read_evaluation(folder)
    (arm,) = found.manifest.arms
    assert re.fullmatch(r"unet-mean-of-2-seeds-\d-\d-flips-rows", arm)
    one = segweave.load(made / "a", device="cpu")
    parameters = sum(p.numel() for p in one.network.parameters())
    assert found.manifest.parameters == 2 * parameters
    assert found.manifest.sources["members"] == str(made / "b")
    command(*words).refused("a second time")


def test_a_run_that_learned_from_the_cases_is_not_averaged(command: Command, made: Path) -> None:
    words = ["evaluate", made / "a", "--with", made / "turned", "--quiet"]
    command(*words).refused("did not learn from the test cases", "turned")
    assert not list((made / "a" / "evaluation").glob("clean-mean-of-2-????????"))


def test_what_repeats_the_released_evaluation_takes_one_model(command: Command, made: Path) -> None:
    words = ["evaluate", made / "a", "--protocol", "published", "--flips", "both", "--quiet"]
    command(*words).refused("one model")
    assert not (made / "a" / "evaluation" / "published-flips-both").exists()


def test_each_command_has_the_options_of_its_half_alone(command: Command, tmp_path: Path) -> None:
    seen = command("score", tmp_path, tmp_path, "--out", tmp_path / "out", "--tiles")
    assert (seen.code, "--tiles" in seen.err) == (2, True)
    seen = command("evaluate", tmp_path, "--classes", "a,b")
    assert (seen.code, "--classes" in seen.err) == (2, True)
    assert command("evaluate", tmp_path, tmp_path).code == 2


def test_files_are_predicted_by_all_of_them(command: Command, made: Path, tmp_path: Path) -> None:
    file = write_volume(tmp_path / "scan.nii.gz", shape=(40, 50, 2))
    words = ["predict", made / "a", file, "--out", tmp_path / "out", "--with", made / "b"]
    seen = command(*words, "--tiles", "--probabilities", "-q", "--device", "cpu")
    assert seen.code == 0, seen.err
    from segweave.prediction import Tiles

    members = tuple(segweave.load(made / name, device="cpu") for name in "ab")
    expected = segweave.predict(
        Ensemble(members, tiles=Tiles()), read_case(file, geometry="check"), probabilities=True
    )
    kept = np.asarray(nibabel.load(tmp_path / "out" / "probabilities" / "scan.nii.gz").dataobj)
    grid = read_case(file, geometry="check").source_grid
    assert grid is not None
    for number in range(kept.shape[-1]):
        plane = grid.to_case(kept[..., number])
        np.testing.assert_array_equal(plane, expected.probabilities[:, number])
    summary = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert summary["model"]["title"] == "the mean of 2 models"
    command(*words, "--flips", "row").refused("did you mean rows")


def test_a_dry_run_lists_and_starts_nothing(command: Command, made: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(f"store: {made / 'store'}\nout: runs\nrecipes: [demo]\nseeds: [0, 1]\n")
    seen = command("grid", file, "--dry-run")
    assert seen.code == 0, seen.err
    assert "unet/seed-1" in seen.out
    assert seen.out.count("to do") == 2
    assert "2 of 2 left" in seen.out
    assert not (tmp_path / "runs").exists()
    file.write_text("store: nowhere\nout: runs\nrecipes: [demo]\nseed: [0]\n")
    command("grid", file).refused("unknown key 'seed'", "did you mean seeds")
    command("grid", tmp_path / "absent.yaml").refused("absent.yaml")


def test_a_run_is_calibrated_once(command: Command, made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made / "a", tmp_path / "a")
    scan = write_volume(tmp_path / "scan.nii.gz")
    words = ["predict", run, scan, "--probabilities", "--no-overlays", "--quiet", "--device", "cpu"]
    before = command(*words, "--out", tmp_path / "before")
    assert "segweave calibrate fits one" in before.err
    seen = command("calibrate", run, "--voxels", 500, "--quiet", "--device", "cpu")
    assert seen.code == 0, seen.err
    assert "ECE, foreground" in seen.out
    assert str(run / "model" / "card.json") in seen.out
    command("calibrate", run).refused("fitted before", "--force")
    after = command(*words, "--out", tmp_path / "after")
    assert "of the model card" in after.err
    refused = command(*words, "--no-temperature", "--out", tmp_path / "refused")
    assert refused.code == 0, refused.err
    maps = [
        nibabel.load(tmp_path / name / "probabilities" / "scan.nii.gz").get_fdata()
        for name in ("before", "after", "refused")
    ]
    assert not np.allclose(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])
    labels = [(tmp_path / name / "scan.nii.gz").read_bytes() for name in ("before", "after")]
    assert labels[0] == labels[1]


def test_uncertainty_asks_for_what_it_needs(command: Command, made: Path, tmp_path: Path) -> None:
    scan = write_volume(tmp_path / "in" / "scan.nii.gz")
    words = [made / "a", "--out", tmp_path / "out", "--quiet"]
    information = ["--uncertainty", "mutual-information"]
    command("predict", *words, scan, *information).refused("at least two predictions", "--flips")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rank.csv").write_text("of another ranking")
    ranked = ["rank", tmp_path / "in", "--run", *words]
    command(*ranked).refused("rank.csv", "--force")
    seen = command(*ranked, "--force", "--pictures", 0, "--device", "cpu")
    assert seen.code == 0, seen.err
    assert "to label first" in seen.out
    assert (tmp_path / "out" / "rank.csv").read_text().splitlines()[1].startswith("1,scan,")
    (tmp_path / "in" / "scan_gt.nii.gz").write_bytes(scan.read_bytes())
    command(*ranked, "--force").refused("1 that have a label", "--labelled")
