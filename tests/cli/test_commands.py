"""The commands on synthetic data: what they write, what they print, and where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np

from segweave.data.store import Store
from segweave.data.target_codes import class_codes
from segweave.phantoms.blobs import write_blobs
from tests.small import SETS, write_volume

from .conftest import Command

TRAIN = [part for text in SETS for part in ("--set", text)]


def test_prepare_acdc_says_what_is_missing(command: Command, made: Path, tmp_path: Path) -> None:
    seen = command("prepare", "acdc", made / "raw", tmp_path / "store")
    assert seen.code == 0
    assert "4 groups, 8 cases" in seen.out
    assert "96 patients are not there" in seen.err
    assert Store(tmp_path / "store").checksum == Store(made / "store").checksum
    command("prepare", "acdc", made / "raw", tmp_path / "strict", "--strict").refused("96 patients")
    assert not (tmp_path / "strict").exists()


def test_prepare_folder_with_options(command: Command, tmp_path: Path) -> None:
    write_blobs(tmp_path, images=6, size=(24, 32))
    out = tmp_path / "store"
    (tmp_path / "codes.yaml").write_text("lesion: SCT:4147007:Mass\n")
    options = ["--fractions", "0.5,0.25,0.25", "--seed", 3, "--classes", "lesion"]
    options += ["--codes", tmp_path / "codes.yaml"]
    seen = command(
        "prepare", "folder", tmp_path / "images", tmp_path / "masks", out, "-q", *options
    )
    assert seen.code == 0, seen.err
    store = Store(out)
    assert store.target.kind == "binary"
    assert store.target.foreground == {1: "lesion"}
    assert class_codes(store.target)[1].type == "SCT:4147007:Mass"
    assert {part: len(ids) for part, ids in store.splits["seed-3"].items()}["train"] in (2, 3)
    again = ["prepare", "folder", tmp_path / "images", tmp_path / "masks", tmp_path / "b", "-q"]
    command(*again, "--fractions", "half").refused("numbers joined with commas")
    (tmp_path / "codes.yaml").write_text("lesions: SCT:4147007:Mass\n")
    command(*again, "--codes", tmp_path / "codes.yaml").refused("available: background, foreground")


def test_train_prints_where_results_are_and_nothing_twice(
    command: Command, made: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "demo", "--store", made / "store", "--out", run, *TRAIN, "--seed", 3]
    seen = command(*arguments)
    assert seen.code == 0, seen.err
    assert seen.out.count(str(run)) == 4
    assert (run / "model" / "card.json").is_file()
    assert "seed: 3" in (run / "recipe.yaml").read_text()
    again = command(*arguments)
    assert again.out == seen.out, "a finished run is not trained again"


def test_predict_writes_labels_overlays_and_probabilities(
    command: Command, made: Path, tmp_path: Path
) -> None:
    scan = write_volume(tmp_path / "scans" / "one.nii.gz")
    write_volume(tmp_path / "scans" / "two.nii.gz", seed=1)
    out = tmp_path / "labels"
    seen = command("predict", made / "run", tmp_path / "scans", "--out", out, "--probabilities")
    assert seen.code == 0, seen.err
    assert "2 in" in seen.out
    image, label = nibabel.load(scan), nibabel.load(out / "one.nii.gz")
    assert np.array_equal(image.affine, label.affine)
    assert image.shape == label.shape
    assert (out / "overlays" / "one.png").is_file()
    maps = nibabel.load(out / "probabilities" / "two.nii.gz")
    assert maps.shape == (36, 40, 4, 4)
    assert np.array_equal(maps.affine, image.affine)
    assert re.search(rf"^overlays: +{re.escape(str(out / 'overlays'))}$", seen.out, re.MULTILINE)
    plain = command("predict", made / "run", scan, "--out", tmp_path / "b", "--no-overlays", "-q")
    assert plain.code == 0
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "one.nii.gz",
        "predictions.json",
    ]


def test_evaluate_a_run_and_describe_it(command: Command, made: Path) -> None:
    seen = command("evaluate", made / "run", "--part", "validation", "-q")
    assert seen.code == 0, seen.err
    assert re.search(r"\| unet \| \d\.\d{4}", seen.out)
    assert "Protocol clean" in seen.out
    folder = made / "run" / "evaluation" / "clean-validation"
    assert str(folder / "cases.csv") in seen.out
    once = command("evaluate", made / "run", "--protocol", "published", "-q")
    assert once.code == 0, once.err
    command("evaluate", made / "run", "--protocol", "published", "-q").refused("a second time")
    described = json.loads(command("info", made / "run", "--json").out)
    assert described["state"] == "finished"
    assert "clean-validation" in described
    for path, word in (
        (made / "store", "checksum"),
        (folder, "protocol"),
        (made / "run" / "model", "weights_sha256"),
        (made / "run" / "recipe.yaml", "training"),
    ):
        found = command("info", path)
        assert found.code == 0, found.err
        assert word in found.out


def test_evaluate_files(command: Command, tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        write_blobs(tmp_path / folder, images=3, size=(24, 32))
    ours, theirs = tmp_path / "ours" / "masks", tmp_path / "theirs" / "masks"
    seen = command("score", ours, theirs, "--out", tmp_path / "scores", "-q")
    assert seen.code == 0, seen.err
    assert "1.0000" in seen.out
    assert "each file counts as its own group" in seen.out
    command("score", ours, theirs, "--out", tmp_path / "scores", "-q").refused("force")


def test_info_of_an_image_whose_header_contradicts_itself(command: Command, made: Path) -> None:
    image = sorted((made / "raw").glob("*/*_frame01.nii.gz"))[0]
    command("info", image).refused("pixdim")
    found = json.loads(command("info", image, "--geometry", "pixdim", "--json").out)
    assert found["stack"] == "space"
    command("info", image, "--geometry", "pixdin").refused("did you mean pixdim?")


def test_progress_goes_to_stderr_and_results_to_stdout(
    command: Command, made: Path, tmp_path: Path
) -> None:
    seen = command("prepare", "acdc", made / "raw", tmp_path / "store")
    assert "preparing acdc" in seen.err
    assert "preparing" not in seen.out
    assert "preparing" not in command("prepare", "acdc", made / "raw", tmp_path / "b", "-q").err
