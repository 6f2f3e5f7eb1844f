"""Bad input at the command: one clear message, an exit code, nothing half-written, nothing lost."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.small import SETS, files_of, write_volume

from .conftest import Command

TRAIN = [part for text in SETS for part in ("--set", text)]


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of a trained run, free to be spoilt."""
    return Path(shutil.copytree(made / "run", tmp_path / "model"))


def nothing_at(path: Path) -> bool:
    """Neither the result nor a leftover of it beside it."""
    return not path.exists() and not any(
        p.name.startswith((".writing", f".{path.name}")) for p in path.parent.iterdir()
    )


# Missing and empty


def test_missing_files_and_folders(command: Command, made: Path, tmp_path: Path) -> None:
    absent, out = tmp_path / "absent", tmp_path / "out"
    run, store = made / "run", made / "store"
    calls: list[tuple[list[object], str]] = [
        (["predict", run, absent / "scan.nii.gz", "--out", out], "scan.nii.gz"),
        (["predict", absent, tmp_path, "--out", out], "absent"),
        (["prepare", "acdc", absent, out], "absent"),
        (["prepare", "folder", absent, tmp_path, out], "absent"),
        (["train", "demo", "--store", absent, "--out", out], "absent"),
        (["train", absent / "mine.yaml", "--store", store, "--out", out], "mine.yaml"),
        (["evaluate", absent], "absent"),
        (["score", absent, tmp_path, "--out", out], "absent"),
        (["info", absent], "absent"),
    ]
    for arguments, word in calls:
        command(*arguments).refused(word)
        assert nothing_at(out), arguments


def test_empty_folders(command: Command, made: Path, tmp_path: Path) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    for arguments in (
        ["predict", made / "run", empty, "--out", out],
        ["predict", empty, empty, "--out", out],
        ["prepare", "acdc", empty, out],
        ["prepare", "folder", empty, empty, out],
        ["evaluate", empty],
        ["score", empty, empty, "--out", out],
        ["info", empty],
    ):
        command(*arguments).refused("empty")
        assert nothing_at(out), arguments


# Images and labels that do not fit


def write_pair(folder: Path, label: np.ndarray, *, size: tuple[int, int] = (20, 24)) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    for name in ("a", "b", "c"):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(np.zeros(size, np.uint8)).save(folder / "masks" / f"{name}.png")
    Image.fromarray(label).save(folder / "masks" / "b.png")


def test_a_mask_of_another_shape(command: Command, tmp_path: Path) -> None:
    write_pair(tmp_path, np.zeros((20, 25), np.uint8))
    out = tmp_path / "store"
    command("prepare", "folder", tmp_path / "images", tmp_path / "masks", out, "-q").refused(
        "b.png", "20 × 24", "20 × 25"
    )
    assert not out.exists()


def test_an_unknown_class_id(command: Command, tmp_path: Path) -> None:
    label = np.zeros((20, 24), np.uint8)
    label[3, 4] = 7
    write_pair(tmp_path, label)
    out = tmp_path / "store"
    arguments = ["prepare", "folder", tmp_path / "images", tmp_path / "masks", out, "-q"]
    command(*arguments, "--kind", "exclusive", "--classes", "background,a,b").refused("7")
    assert not out.exists()


def test_an_unknown_class_id_and_another_shape_in_a_raw_release(
    command: Command, made: Path, tmp_path: Path
) -> None:
    for name, spoil in (("id", _set_id), ("shape", _cut_label)):
        raw = Path(shutil.copytree(made / "raw", tmp_path / name))
        label = sorted(raw.glob("*/*_gt.nii.gz"))[1]
        spoil(label)
        out = tmp_path / f"store-{name}"
        command("prepare", "acdc", raw, out, "-q").refused(label.parent.name)
        assert not out.exists()


def _set_id(path: Path) -> None:
    image = nibabel.load(path)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] = 9
    nibabel.save(nibabel.Nifti1Image(values, None, image.header), path)


def _cut_label(path: Path) -> None:
    image = nibabel.load(path)
    values = np.asarray(image.dataobj)[:-1].copy()
    nibabel.save(nibabel.Nifti1Image(values, None, image.header), path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_numbers(
    command: Command, made: Path, tmp_path: Path, value: float
) -> None:
    path = write_volume(tmp_path / "scan.nii.gz")
    image = nibabel.load(path)
    values = np.asarray(image.dataobj).copy()
    values[3, 4, 1] = value
    nibabel.save(nibabel.Nifti1Image(values, image.affine), path)
    out = tmp_path / "labels"
    seen = command("predict", made / "run", path, "--out", out, "-q")
    seen.refused("scan.nii.gz", "NaN" if np.isnan(value) else "nfinite")
    assert not list(out.glob("*.nii.gz"))


def test_predictions_and_references_that_do_not_fit(
    command: Command, made: Path, tmp_path: Path
) -> None:
    ours, theirs, out = tmp_path / "ours", tmp_path / "theirs", tmp_path / "scores"
    for folder in (ours, theirs):
        folder.mkdir()
        for name in ("a", "b"):
            Image.fromarray(np.eye(12, dtype=np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(np.eye(13, dtype=np.uint8)).save(ours / "b.png")
    command("score", ours, theirs, "--out", out, "-q").refused("b", "12", "13")
    (ours / "b.png").unlink()
    command("score", ours, theirs, "--out", out, "-q").refused("b: no prediction")
    Image.fromarray(5 * np.eye(12, dtype=np.uint8)).save(ours / "b.png")
    command("score", ours, theirs, "--out", out, "-q", "--classes", "x").refused("b", "5")
    assert nothing_at(out)


# What is fine: a patient with one slice


def test_a_volume_with_one_slice_repeats_its_edges(
    command: Command, made: Path, tmp_path: Path
) -> None:
    make = ["train", "demo", "--store", made / "store", "--out", tmp_path / "run", "-q", *TRAIN]
    window = ["--set", "context.name=sa-lstm", "--set", "input.slices=3"]
    assert command(*make, *window).code == 0
    path = write_volume(tmp_path / "one.nii.gz", (36, 40, 1))
    seen = command("predict", tmp_path / "run", path, "--out", tmp_path / "labels", "-q")
    assert seen.code == 0, seen.err
    assert nibabel.load(tmp_path / "labels" / "one.nii.gz").shape == (36, 40, 1)


# Recipes, checkpoints


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training.epoch=3", ["unknown key 'training.epoch'", "did you mean epochs?"]),
        ("trainig.epochs=3", ["trainig", "training"]),
        ("training.epochs=many", ["training.epochs", "a whole number", "many"]),
        ("context.name=sa-lstn", ["sa-lstn", "did you mean sa-lstm"]),
        ("network.name=unett", ["unett", "did you mean unet"]),
        ("network.options.widht=3", ["widht", "width"]),
        ("weaving.at=botleneck", ["botleneck", "bottleneck"]),
        ("nonsense", ["KEY=VALUE"]),
    ],
)
def test_a_wrong_key_or_value_of_a_recipe(
    command: Command, made: Path, tmp_path: Path, text: str, words: list[str]
) -> None:
    out = tmp_path / "run"
    extra = ["--set", "context.name=sa-lstm"] if text.startswith("weaving") else []
    arguments = ["train", "demo", "--store", made / "store", "--out", out, "-q", *TRAIN]
    command(*arguments, *extra, "--set", text).refused(*words)
    assert not out.exists()


def test_a_recipe_file_with_a_wrong_key_is_named(
    command: Command, made: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: demo\ntraining: {bach_size: 4}\n")
    seen = command("train", recipe, "--store", made / "store", "--out", tmp_path / "run")
    seen.refused("mine.yaml", "training.bach_size", "did you mean batch_size?")


def test_weights_of_another_network(command: Command, model: Path, tmp_path: Path) -> None:
    file = model / "model" / "weights.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name] = torch.zeros(3, 3)
    save_file(weights, file)
    out = tmp_path / "labels"
    scan = write_volume(tmp_path / "scan.nii.gz")
    command("predict", model, scan, "--out", out).refused(name, "weights.safetensors")
    assert nothing_at(out)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_in_place_of_weights(command: Command, model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    scan = write_volume(tmp_path / "scan.nii.gz")
    evil = pickle.dumps({"a": _Evil(marker)})
    (model / "model" / "weights.safetensors").write_bytes(evil)
    command("predict", model, scan, "--out", tmp_path / "labels").refused("weights.safetensors")
    (model / "checkpoints" / "last.ckpt").write_bytes(evil)
    command("predict", model, scan, "--out", tmp_path / "labels", "--checkpoint", "last").refused(
        "last.ckpt"
    )
    weights = tmp_path / "weights.pth"
    weights.write_bytes(evil)
    command(
        "train", "demo", "--store", model.parent, "--out", tmp_path / "x", "--set",
        f"network.pretrained={weights}",
    ).refused()  # fmt: skip
    assert not marker.exists()


def test_a_pretrained_pickle_is_refused_before_anything_is_written(
    command: Command, made: Path, tmp_path: Path
) -> None:
    marker, weights, out = tmp_path / "it-ran", tmp_path / "weights.pth", tmp_path / "run"
    weights.write_bytes(pickle.dumps({"a": _Evil(marker)}))
    command(
        "train", "demo", "--store", made / "store", "--out", out, "-q", *TRAIN,
        "--set", f"network.pretrained={weights}",
    ).refused("weights.pth", "safetensors")  # fmt: skip
    assert not marker.exists()
    assert not out.exists()


# Existing results


def test_existing_results_are_left_alone(command: Command, made: Path, tmp_path: Path) -> None:
    before = files_of(made)
    command("prepare", "acdc", made / "raw", made / "store", "-q").refused("it exists")
    another = ["--set", "network.options.width=3"]
    command(
        "train", "demo", "--store", made / "store", "--out", made / "run", "-q", *TRAIN, *another
    ).refused("a run of the same recipe")
    command(
        "train", "demo", "--store", made / "store", "--out", made / "run", "--no-resume", *TRAIN
    ).refused("choose another folder")
    assert files_of(made) == before
    scan = write_volume(tmp_path / "scan.nii.gz")
    labels = tmp_path / "labels"
    assert command("predict", made / "run", scan, "--out", labels, "-q").code == 0
    written = files_of(labels)
    command("predict", made / "run", scan, "--out", labels, "-q").refused("--force")
    (tmp_path / "sub").mkdir()
    command("predict", made / "run", scan, "--out", tmp_path, "-q", "--force").refused("input")
    assert files_of(labels) == written
    assert command("predict", made / "run", scan, "--out", labels, "-q", "--force").code == 0
