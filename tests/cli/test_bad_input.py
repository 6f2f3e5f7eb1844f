"""Bad input at the command: one clear message, an exit code, nothing half-written, nothing lost."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.small import SETS, files_of, make_run, make_store, write_volume

from .conftest import Command

TRAIN = [part for text in SETS for part in ("--set", text)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    make_store(folder)
    make_run(folder)
    return folder


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
        (["evaluate", absent, tmp_path, "--out", out], "absent"),
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
        ["evaluate", empty, empty, "--out", out],
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
def test_pixels_that_are_no_numbers(
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
    command("evaluate", ours, theirs, "--out", out, "-q").refused("b", "12", "13")
    (ours / "b.png").unlink()
    command("evaluate", ours, theirs, "--out", out, "-q").refused("b: no prediction")
    Image.fromarray(5 * np.eye(12, dtype=np.uint8)).save(ours / "b.png")
    command("evaluate", ours, theirs, "--out", out, "-q", "--classes", "x").refused("b", "5")
    assert nothing_at(out)


# Damaged and lying files


def _nifti(path: Path) -> None:
    write_volume(path)


def _h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = np.random.default_rng(0).normal(size=(4, 36, 40))


def _npz(path: Path) -> None:
    np.savez(path, img=np.random.default_rng(0).normal(size=(4, 36, 40)))


def _png(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (36, 40), dtype=np.uint8)
    Image.fromarray(values).save(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "scan.nii": _nifti,
    "scan.nii.gz": _nifti,
    "scan.h5": _h5,
    "scan.npz": _npz,
    "scan.png": _png,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_files_that_are_cut_off(
    command: Command, made: Path, tmp_path: Path, name: str, share: float
) -> None:
    path, out = tmp_path / name, tmp_path / "labels"
    WRITERS[name](path)
    assert command("predict", made / "run", path, "--out", tmp_path / "ok", "-q").code == 0
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    command("predict", made / "run", path, "--out", out, "-q").refused(name)
    assert not [p for p in out.glob("*") if p.name != "predictions.json"]


def _huge_nifti(path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1\0"
    block = header.binaryblock + b"\0" * 4 + b"\1" * 1000
    path.write_bytes(gzip.compress(block) if path.suffix == ".gz" else block)


def _huge_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (10**4, 10**5, 10**5), "f4", chunks=(1, 64, 64))


def _huge_npz(path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000, 100000, 100000), }"
    header += b" " * (117 - len(header)) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("img.npy", npy)


def _huge_png(path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", 900_000, 900_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("scan.nii", _huge_nifti),
        ("scan.nii.gz", _huge_nifti),
        ("scan.h5", _huge_h5),
        ("scan.npz", _huge_npz),
        ("scan.png", _huge_png),
    ],
)
def test_a_header_that_claims_terabytes(
    command: Command, made: Path, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path, out = tmp_path / name, tmp_path / "labels"
    write(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    command("predict", made / "run", path, "--out", out, "-q").refused(name)
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kB"
    assert not [p for p in out.glob("*") if p.name != "predictions.json"]


def test_a_file_that_fails_does_not_stop_the_others(
    command: Command, made: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "labels"
    write_volume(scans / "good.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"not gzip")
    seen = command("predict", made / "run", scans, "--out", out, "-q")
    seen.refused("1 of 2", "bad.nii.gz")
    assert (out / "good.nii.gz").is_file()
    assert not (out / "bad.nii.gz").exists()


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


# A full disk and Ctrl-C, in a process of their own


def call(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The real command; with `limit`, no file may grow beyond that many bytes."""

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "segweave", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=None if limit is None else small_disk,
    )


def ended_clearly(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file-size limits are a POSIX matter")
def test_a_full_disk_while_preparing_training_and_predicting(made: Path, tmp_path: Path) -> None:
    store, run, labels = tmp_path / "store", tmp_path / "run", tmp_path / "labels"
    done = call("prepare", "acdc", made / "raw", store, "-q", limit=2000)
    ended_clearly(done, 1)
    assert not store.exists()
    done = call(
        "train", "demo", "--store", made / "store", "--out", run, "-q", *TRAIN, limit=20_000
    )
    ended_clearly(done, 1)
    assert not (run / "model" / "card.json").exists()
    scan = write_volume(tmp_path / "scan.nii.gz")
    assert call("predict", made / "run", scan, "--out", labels, "-q").returncode == 0
    before = files_of(labels)
    done = call("predict", made / "run", scan, "--out", labels, "-q", "--force", limit=100)
    assert "unexpected" not in done.stderr
    ended_clearly(done, 1)
    assert files_of(labels) == before
    # With space again, the same commands go through.
    again = call("train", "demo", "--store", made / "store", "--out", run, "-q", *TRAIN)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are a POSIX matter")
def test_ctrl_c_stops_a_training_that_then_goes_on(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", "demo", "--store", made / "store", "--out", run, "-q", *TRAIN]
    arguments += ["--set", "training.epochs=40"]
    process = subprocess.Popen(
        [sys.executable, "-m", "segweave", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    metrics = run / "metrics.csv"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert not list(run.rglob(".writing-*"))
    again = call(*arguments)
    assert again.returncode == 0, again.stderr
    assert (run / "model" / "card.json").is_file()
