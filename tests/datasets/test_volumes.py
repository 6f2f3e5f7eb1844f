from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.datasets.synapse import THIRTEEN
from segweave.errors import InputError
from segweave.registry import datasets
from tests.datasets.volumes import load, write


def _task(folder: Path, **about: Any) -> Path:
    rng = np.random.default_rng(2)
    rows = []
    for k in range(4):
        write(
            folder / "imagesTr" / f"la_{k:03d}.nii.gz",
            rng.normal(size=(6, 5, 3, 2)).astype(np.float32),
        )
        write(
            folder / "labelsTr" / f"la_{k:03d}.nii.gz",
            rng.integers(0, 2, (6, 5, 3)).astype(np.uint8),
        )
        name = f"la_{k:03d}.nii.gz"
        rows.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "Made",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "left atrium"},
        "numTraining": 4,
        "training": rows,
        "test": ["./imagesTs/la_009.nii.gz"],
        **about,
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_task_of_the_decathlon(tmp_path: Path) -> None:
    folder = _task(tmp_path / "Task02_Made")
    (folder / "imagesTr" / "._la_000.nii.gz").write_bytes(b"x")
    report = prepare("decathlon", folder, tmp_path / "s")
    assert (report.cases, report.missing) == (4, [])
    assert any("1 test images" in warning for warning in report.warnings)
    store = Store(tmp_path / "s")
    assert store.target.names == ("background", "left atrium")
    case = store.case("la_000")
    assert case.image.shape == (3, 2, 5, 6)
    image = np.asarray(nibabel.load(folder / "imagesTr" / "la_000.nii.gz").dataobj)
    np.testing.assert_array_equal(case.image[:, 1], image[..., 1].transpose(2, 1, 0))
    assert sum(len(ids) for ids in store.splits["seed-0"].values()) == 4


def test_faults_of_a_task(tmp_path: Path) -> None:
    folder = _task(tmp_path / "Task02_Made")
    (folder / "labelsTr" / "la_001.nii.gz").unlink()
    report = prepare("decathlon", folder, tmp_path / "s")
    assert any("labelsTr/la_001.nii.gz is not there" in line for line in report.missing)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="1 channels"):
        prepare("decathlon", _task(folder, modality={"0": "MR"}), tmp_path / "t")
    for about, message in (({"training": []}, "nnunet"), ({"labels": {"a": 0}}, "labels by id")):
        shutil.rmtree(folder)
        with pytest.raises(InputError, match=message):
            prepare("decathlon", _task(folder, **about), tmp_path / "t")
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="prepare it as decathlon"):
        prepare("nnunet", _task(folder), tmp_path / "t")
    (folder / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="JSON"):
        prepare("decathlon", folder, tmp_path / "t")


def _table(raw: Path, rows: list[str], head: str = "image,mask,case,group,part") -> Path:
    path = raw / "cases.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_table_of_cases(raw: Path, tmp_path: Path) -> None:
    numbers = [path.name[3:7] for path in sorted((raw / "img").iterdir())][:5]
    parts = ["train", "train", "valid", "test", "test"]
    groups = ["a", "a", "b", "c", "d"]
    rows = [
        f"img/img{n}.nii.gz,label/label{n}.nii.gz,scan {n},{group},{part}"
        for n, group, part in zip(numbers, groups, parts, strict=True)
    ]
    table = _table(raw, rows)
    for source in (table, raw):
        report = prepare("table", source, tmp_path / "s", overwrite=True)
        assert (report.groups, report.cases) == (4, 5)
    store = Store(tmp_path / "s")
    assert store.grouped
    assert store.splits["given"]["train"] == [f"scan {n}" for n in numbers[:2]]
    assert store.target.kind == "exclusive"
    assert len(store.target.names) == 12
    np.testing.assert_array_equal(
        store.case(f"scan {numbers[0]}").label, load(raw / "label" / f"label{numbers[0]}.nii.gz")
    )
    prepare("table", table, tmp_path / "t", classes=THIRTEEN)
    assert Store(tmp_path / "t").target.names == THIRTEEN


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["IMG,LABEL,a,g,train", "IMG,LABEL,a,g,train"], "a second 'a'"),
        (["IMG,LABEL,a,g,train", "IMG,LABEL,b,g,test"], "every group in one part"),
        (["IMG,LABEL,a,g,tset"], "train, valid or test"),
        (["IMG,LABEL,a,g,train", "IMG,LABEL,b,h,"], "a part in every row"),
        ([",LABEL,a,g,"], "a path as image"),
        ([], "no rows"),
    ],
)
def test_faults_of_a_table(raw: Path, tmp_path: Path, rows: list[str], message: str) -> None:
    number = sorted((raw / "img").iterdir())[0].name[3:7]
    filled = [
        row.replace("IMG", f"img/img{number}.nii.gz").replace(
            "LABEL", f"label/label{number}.nii.gz"
        )
        for row in rows
    ]
    with pytest.raises(InputError, match=message):
        prepare("table", _table(raw, filled), tmp_path / "s")


def test_a_table_of_arrays_with_their_labels(tmp_path: Path) -> None:
    for k in range(3):
        label = np.zeros((4, 6, 5), np.uint8)
        label[k] = 1
        np.savez(
            tmp_path / f"v{k}.npz",
            image=np.random.default_rng(k).normal(size=(4, 6, 5)),
            label=label,
        )
    _table(tmp_path, [f"v{k}.npz" for k in range(3)], head="Image")
    report = prepare("table", tmp_path, tmp_path / "s")
    assert report.cases == 3
    store = Store(tmp_path / "s")
    assert store.target.kind == "binary"
    assert store.ids == ["v0", "v1", "v2"]
    with pytest.raises(InputError, match="columns image"):
        prepare("table", _table(tmp_path, ["a,b"], head="picture,mask"), tmp_path / "t")


def test_every_set_has_a_card() -> None:
    for name in ("synapse", "nnunet", "decathlon", "table"):
        assert datasets.card(name).entry == "plan"


def test_a_table_without_groups_says_so(raw: Path, tmp_path: Path) -> None:
    numbers = [path.name[3:7] for path in sorted((raw / "img").iterdir())][:2]
    rows = [
        f"img/img{n}.nii.gz,label/label{n}.nii.gz,{part}"
        for n, part in zip(numbers, ("train", "test"), strict=True)
    ]
    report = prepare("table", _table(raw, rows, "image,mask,part"), tmp_path / "s")
    assert any("its own group" in line for line in report.warnings)
    assert not Store(tmp_path / "s").grouped
