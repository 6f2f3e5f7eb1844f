"""Mistakes on the command line and in recipes are answered before torch is imported, and the answer
names what to do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segweave.data.store import Store
from segweave.phantoms.writing import write_picture
from segweave.recipes import as_set, load_recipe
from segweave.runs.run_folder import RunLayout
from segweave.storage import write_json
from tests.small import SETS, make_store, write_volume

CODE = """
import contextlib, io, json, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise RuntimeError("torch was imported")

sys.meta_path.insert(0, NoTorch())
from segweave.cli import main
answers = []
for words in json.loads(sys.stdin.read()):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
            code = 0
        except SystemExit as end:
            code = end.code
    answers.append((code, err.getvalue()))
assert "torch" not in sys.modules
print(json.dumps(answers))
"""
TRAIN = ["train", "demo", "--store", "store", "--out", "new", "--set", "input.size=[32,32]"]
SAME = [word for text in SETS for word in ("--set", text)]

# The words of the command, and what the answer must name.
MISTAKES: list[tuple[list[str], str]] = [
    (["train", "acdc-unt-128", "--store", "store", "--out", "new"], "did you mean acdc-unet-128"),
    (["train", "nothing.yaml", "--store", "store", "--out", "new"], "no such file"),
    (["train", "demo", "--store", "nowhere", "--out", "new"], "segweave prepare"),
    (["train", "demo", "--store", "raw", "--out", "new"], "segweave prepare"),
    ([*TRAIN, "--set", "training.epoks=3"], "did you mean epochs"),
    ([*TRAIN, "--set", "lr=3"], "training.optimiser.rate"),
    ([*TRAIN, "--set", "epochs=3"], "did you mean training.epochs?"),
    ([*TRAIN, "--set", "input.size=100"], "[height, width]"),
    ([*TRAIN, "--set", "input.size=[100,100]"], "input.size: [96, 96] or input.size: [112, 112]"),
    ([*TRAIN, "--set", "network.options.widht=3"], "did you mean width"),
    ([*TRAIN, "--network", "unt"], "did you mean unet"),
    ([*TRAIN, "--context", "sa-lsm"], "did you mean sa-lstm"),
    ([*TRAIN, "--context", "sa-lstm", "--set", "context.form=printed"], "paper"),
    ([*TRAIN, "--set", "training.loss=[{name: dise}]"], "did you mean dice"),
    ([*TRAIN, "--fold", "7"], "the folds 0, 1, 2, 3, 4"),
    ([*TRAIN, "--start-from", "nowhere"], "nothing there"),
    (["train", "demo", "--store", "store", "--out", "run", *SAME, "--seed", "1"], "another folder"),
    (["train", "demo", "--store", "store", "--out", "raw"], "another folder"),
    (["evaluate", "nowhere"], "segweave train"),
    (["evaluate", "run", "--part", "tset"], "did you mean test"),
    (["evaluate", "run", "--protocol", "clena"], "did you mean clean"),
    (["evaluate", "run", "--metric", "dcie"], "did you mean dice"),
    (["evaluate", "run", "--checkpoint", "best-on-test"], "did you mean best"),
    (["evaluate", "run", "--store", "nowhere"], "segweave prepare"),
    (["evaluate", "run", "--out", "raw"], "another folder"),
    (["predict", "nowhere", "scan.nii.gz", "--out", "new"], "segweave train"),
    (["predict", "run", "nothing.nii.gz", "--out", "new"], "nothing there"),
    (["predict", "run", "raw/missing", "--out", "new"], "nothing there"),
    (["predict", "run", "scan.nii.gz", "--out", "."], "choose another output folder"),
    (["predict", "run", "scan.nii.gz", "--out", "done"], "--force"),
    (["predict", "begun", "scan.nii.gz", "--out", "new"], "--checkpoint last"),
    (["predict", "run", "scan.nii.gz", "--out", "new", "--with", "nowhere"], "nothing there"),
    (["predict", "run", "scan.nii.gz", "--out", "new", "--denoise", "run"], "predicts an image"),
    (["denoise", "scan.nii.gz", "--run", "run", "--out", "new"], "segweave prepare low-dose"),
    (["denoise", "scan.nii.gz", "--run", "nowhere", "--out", "new"], "segweave train"),
    (["train", "low-dose-red-cnn", "--store", "store", "--out", "new"], "compares images"),
    (["prepare", "low-dose", "raw", "new", "--dose", "2"], "fractions of the full dose"),
    (["score", "nowhere", "raw", "--out", "new"], "no such folder"),
    (["compare", "nowhere", "--reference", "a"], "nowhere"),
    (["summarise", "nowhere"], "nowhere"),
    (["grid", "nothing.yaml"], "no such file"),
    (["info", "nowhere"], "nothing there"),
    (["train", "unet", "--store", "store", "--out", "new"], "--network unet"),
    (["train", "demo", "--store", "pictures", "--out", "new"], "check the path"),
    (["score", "masks", "store", "--out", "new"], "segweave evaluate RUN --store STORE"),
    (["check", "store"], "segweave info"),
    (["prepare", "folder", "pictures", "pictures", "new"], "differs from that of the images"),
    (["prepare", "folder", "masks", "pictures", "new"], "are swapped"),
    (["prepare", "folder", "pictures", "masks", "new"], "segweave check pictures --as folder"),
    (["contexts", "--plugin", "x.py"], "segweave --plugin FILE.py contexts"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    store = Store(make_store(folder, patients=5))
    recipe = load_recipe("demo", [*SETS, as_set("data.store", str(store.path))])
    for name in ("run", "begun"):
        layout = RunLayout(folder / name)
        layout.checkpoints.mkdir(parents=True)
        for checkpoint in ("last", "best"):
            layout.checkpoint(checkpoint).touch()
        layout.recipe.write_text(recipe.to_yaml())
        data = {"name": store.name, "checksum": store.checksum, "cases": {}}
        layout.environment.write_text(json.dumps({"segweave": "0", "data": data}))
    card = {"format": 1, "recipe": recipe.to_dict(), "target": store.target.model_dump()}
    write_json(folder / "run" / "model" / "card.json", card | {"weights_sha256": "0"})
    colours = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    for name, mask in (("a", np.ones((20, 24), np.uint8)), ("b", np.ones((18, 24), np.uint8))):
        write_picture(colours, folder / "pictures" / f"{name}.png")
        write_picture(mask * 255, folder / "masks" / f"{name}.png")
    write_volume(folder / "scan.nii.gz")
    write_volume(folder / "done" / "scan.nii.gz")
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> list[tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps([words for words, _ in MISTAKES]),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    result: list[tuple[int, str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda n: " ".join(MISTAKES[n][0][:9]))
def test_a_mistake_is_answered_before_torch_is_imported(
    answers: list[tuple[int, str]], number: int
) -> None:
    code, message = answers[number]
    assert "torch was imported" not in message
    assert code == 2, message
    assert MISTAKES[number][1] in message


def test_a_part_may_be_called_as_in_other_programs(folder: Path) -> None:
    words = [["evaluate", "run", "--part", "val"], ["evaluate", "run", "--part=train"]]
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    for status, message in json.loads(done.stdout):
        # The parts were understood: what stops the command is torch, which it needs now.
        assert (status, "torch was imported" in message) == (1, True)
