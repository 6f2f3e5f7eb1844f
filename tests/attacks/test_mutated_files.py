"""Texts and JSON files with random damage: each is read, or refused with an error of ours."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.datasets.folder import _read_table
from segweave.datasets.table import _rows
from segweave.errors import SegweaveError
from segweave.evaluation import evaluate_folders, read_evaluation
from segweave.evaluation.case_table import read_entries
from segweave.formats import find_images, write_label
from segweave.grid import load_grid
from segweave.prediction.box_file import read_boxes
from segweave.prediction.summary import read_summary
from segweave.recipes import load_recipe
from segweave.runs.run_folder import read_rows

INPUTS = 150
"""Damaged inputs for each reader."""
_VALUES = (None, 1, -1, 2.5, 1e308, "x", "", [], {}, [1], [[1, 2], [3]], True, "../x", 10**30,
           {"a": 1}, [None], "\0", float("nan"))  # fmt: skip
_YAML = (".nan", "1e400", "~", "[]", "{}", "2024-99-99", "!!int x", "!!set {a}", "*a", "<<",
         "9" * 30, "'{fold}'", "- b", "!!binary aGk=", "1:30:00", "|\n  x", "[32, 32]")  # fmt: skip
TEXTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "recipe.yaml": (
        load_recipe,
        "extends: demo\narm: a\nseed: 3\nnetwork: {name: unet, options: {width: 2}}\n"
        "input: {size: [32, 32], channels: [grey]}\ntraining:\n  epochs: 1\n  loss:\n"
        "    - {name: dice, weight: 0.5}\n",
    ),
    "grid.yaml": (
        load_grid,
        "format: 1\nstore: s\nout: runs\nrecipes: [demo, {recipe: demo, arm: b, set: {seed: 2}}]\n"
        "contexts: [none, {context: conv, at: skips}]\nseeds: [0, 1]\nmetrics: [nsd]\njobs: 2\n"
        "margin: 0.01\nmargin_reason: why\n",
    ),
    "table.csv": (_rows, "image,mask,case,group,part\na.png,b.png,c,g,train\nd.png,e.png,f,,\n"),
    "groups.csv": (_read_table, 'case,group,part\na,b,train\n"c\nd",e,val\n'),
    "cases.csv": (read_entries, "case,group,part,stack,arm,seed\na,g,test,space,u,1\nb,,,,,"),
    "boxes.csv": (read_boxes, "case,slice,x0,y0,x1,y1\na,0,1,2,10,12\nb,,1,2,3,4\n"),
    "metrics.csv": (read_rows, "step,epoch,loss,validation_dice\n1,1,0.5,\n2,1,0.25,0.75\n"),
}  # fmt: skip


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, removed, repeated or put in."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(found) + 1)
        length = chance.choice((1, 2, 8, 40))
        put = (
            bytes(chance.randrange(256) for _ in range(min(length, 4))),
            chance.choice(_YAML).encode(),
            bytes(found[at : at + length]) * 2,
            b"",
        )
        found[at : at + length] = chance.choice(put)
    return bytes(found)


def changed(tree: Any, chance: random.Random) -> Any:
    """JSON with one value replaced or left out, somewhere."""
    tree = copy.deepcopy(tree)
    inside = tree
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = chance.choice(keys)
        if isinstance(inside[key], dict | list) and inside[key] and chance.random() < 0.75:
            inside = inside[key]
        elif chance.random() < 0.2:
            del inside[key]
            return tree
        else:
            inside[key] = copy.deepcopy(chance.choice(_VALUES))
            return tree


def outcome(read: Callable[[], object]) -> str:
    """Any other error than ours ends the test."""
    try:
        read()
    except SegweaveError:
        return "refused"
    return "read"


@pytest.mark.parametrize(
    "cases",
    [[5], ["labels"], [{"labels": 3}], [{"labels": [1]}], [None], {"labels": "a"}, 7,
     [{"file": "", "labels": ""}], [{"file": "\0", "labels": "a"}]],
)  # fmt: skip
def test_a_list_of_predictions_that_is_none(tmp_path: Path, cases: object) -> None:
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps({"format": 1, "cases": cases}))
    np.save(tmp_path / "scan.npy", np.zeros((3, 8, 8), np.int16))
    assert find_images(tmp_path) == [tmp_path / "scan.npy"]
    sound = isinstance(cases, list) and all(
        isinstance(one, dict) and isinstance(one["labels"], str) for one in cases
    )
    assert outcome(lambda: read_summary(file, False)) == ("read" if sound else "refused")
    assert read_summary(file, True) == (cases if sound else [])


@pytest.mark.parametrize("name", TEXTS)
def test_damaged_texts(tmp_path: Path, name: str) -> None:
    read, text = TEXTS[name]
    path, chance = tmp_path / name, random.Random(name)
    path.write_text(text)
    read(path)
    seen = set()
    for _ in range(INPUTS):
        path.write_bytes(damaged(text.encode(), chance))
        seen.add(outcome(lambda: read(path)))
    assert "refused" in seen


def test_damaged_evaluations(tmp_path: Path) -> None:
    label = np.zeros((2, 8, 8), np.uint8)
    label[:, 2:5, 3:6] = 1
    case = Case(id="a", group="a", image=label[:, None], stack="space")
    for folder in ("labels", "truth"):
        (tmp_path / folder).mkdir()
        write_label(label, case, tmp_path / folder / "a.npz")
    folder = evaluate_folders(tmp_path / "labels", tmp_path / "truth", tmp_path / "e").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    table, chance = (folder / "cases.csv").read_bytes(), random.Random(1)
    seen = set()
    for number in range(INPUTS):
        now = damaged(table, chance) if number % 2 else table
        stated = manifest if number % 2 else changed(manifest, chance)
        if number % 2:
            stated = {**stated, "cases_sha256": hashlib.sha256(now).hexdigest()}
        (folder / "cases.csv").write_bytes(now)
        (folder / "manifest.json").write_text(json.dumps(stated))
        seen.add(outcome(lambda: read_evaluation(folder)))
    assert seen == {"read", "refused"}


def test_damaged_stores(tmp_path: Path) -> None:
    image = np.arange(2 * 64, dtype=np.int16).reshape(2, 1, 8, 8)
    cases = [
        Case(
            id=id,
            group=id,
            image=image + n,
            label=(image[:, 0] % 2).astype(np.uint8),
            stack="space",
        )
        for n, id in enumerate("ab")
    ]
    with StoreWriter(tmp_path / "s", "s", TargetSpec(names=("background", "organ"))) as writer:
        for case in cases:
            writer.add(case)
        writer.finish({"default": {"train": ["a"], "valid": ["b"], "test": []}})
    record = next((tmp_path / "s").rglob("record.json"))
    chance, seen = random.Random(2), set()
    for file in (tmp_path / "s" / "manifest.json", record):
        sound = json.loads(file.read_text())
        for _ in range(INPUTS // 2):
            file.write_text(json.dumps(changed(sound, chance)))
            seen.add(outcome(lambda: list(opened(tmp_path / "s"))))
        file.write_text(json.dumps(sound))
    assert "refused" in seen


def opened(folder: Path) -> list[Case]:
    """Every case of a store, whose checksums were looked at."""
    store = Store(folder)
    assert list(store.verify()) == store.ids
    return [store.case(id) for id in store.ids]
