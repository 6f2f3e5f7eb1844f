from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from segweave.checking import check
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.datasets.export_nnunet import write_nnunet
from segweave.errors import InputError
from segweave.formats import read_case, write_label
from segweave.phantoms.abdomen import write_abdomen
from segweave.phantoms.blobs import write_blobs
from segweave.phantoms.cardiac import write_cardiac
from tests.checking.faults import huge_picture
from tests.datasets.broken import break_pairs, rewrite, seven, truncate, turned
from tests.datasets.layouts import MAKERS
from tests.datasets.volumes import all_named, pairs_of
from tests.formats.test_dicom import write_series


def test_every_fault_of_synapse_is_listed(raw: Path) -> None:
    faults = break_pairs(pairs_of(raw))
    report = check(raw)
    all_named(report, faults)
    assert (report.failed, report.cases) == (4, 3)
    apart = next(p for p in report.problems if p.kind == "geometry")
    assert apart.found.startswith("corners up to")
    assert apart.image is not None


def test_every_fault_of_acdc_is_listed(tmp_path: Path) -> None:
    folder = write_cardiac(tmp_path / "training", patients=5, size=(36, 32), slices=3)
    labels = sorted(folder.rglob("*_gt.nii.gz"))
    pairs = [(p.with_name(p.name.replace("_gt", "")), p) for p in labels]
    faults = break_pairs(pairs)
    all_named(check(folder), faults)


def test_every_fault_of_nnunet_is_listed(abdomens: Path, tmp_path: Path) -> None:
    prepare("synapse", abdomens, tmp_path / "s")
    folder = write_nnunet(Store(tmp_path / "s"), tmp_path, split="15-3-12")
    labels = sorted((folder / "labelsTr").iterdir()) + sorted((folder / "labelsTs").iterdir())
    pairs = [
        (p.parent.with_name(p.parent.name.replace("labels", "images"))
         / p.name.replace(".nii", "_0000.nii"), p)
        for p in labels
    ]  # fmt: skip
    faults = break_pairs(pairs)
    report = check(folder)
    assert report.name == "nnunet"
    all_named(report, faults)


def _decathlon(abdomens: Path, out: Path) -> Path:
    rows = []
    for image, label in pairs_of(abdomens):
        for path, place in ((image, "imagesTr"), (label, "labelsTr")):
            (out / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / place / f"ct_{image.name[3:]}")
        name = f"ct_{image.name[3:]}"
        rows.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    ids = ["background", *(f"organ {i}" for i in range(1, 12))]
    about = {
        "name": "Made",
        "modality": {"0": "CT"},
        "labels": {str(i): name for i, name in enumerate(ids)},
        "numTraining": len(rows),
        "training": rows,
        "test": ["./imagesTs/ct_99.nii.gz"],
    }
    (out / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return out


def test_every_fault_of_the_decathlon_is_listed(abdomens: Path, tmp_path: Path) -> None:
    folder = _decathlon(abdomens, tmp_path / "Task01_Made")
    images = sorted((folder / "imagesTr").iterdir())
    faults = break_pairs([(p, folder / "labelsTr" / p.name) for p in images])
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    about["training"].append(about["training"][-1])
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    report = check(folder)
    assert report.name == "decathlon"
    all_named(report, {**faults, "listed twice": ("same-id", folder / "dataset.json")})
    with pytest.raises(InputError, match="twice"):
        prepare("decathlon", folder, tmp_path / "s")
    # Paths of another machine, and what is not a path.
    gone = "/nowhere/ct_77.nii.gz"
    rows = [{"image": gone, "label": gone}, {"image": None, "label": 7}]
    about["training"] = about["training"][:-1] + rows
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    report = check(folder)
    all_named(
        report, {"gone": ("missing", Path(gone)), "null": ("layout", folder / "dataset.json")}
    )
    with pytest.raises(InputError, match="as paths"):
        prepare("decathlon", folder, tmp_path / "s")


@pytest.mark.parametrize("absolute", [False, True])
def test_a_list_that_leaves_its_folder_is_refused(
    abdomens: Path, tmp_path: Path, absolute: bool
) -> None:
    folder = _decathlon(abdomens, tmp_path / "Task01_Made")
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    outside = tmp_path / "outside.nii.gz"
    (folder / about["training"][0]["label"]).rename(outside)
    about["training"][0]["label"] = str(outside) if absolute else "imagesTr/../../outside.nii.gz"
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    report = check(folder)
    assert [p for p in report.problems if "outside of its folder" in p.found]
    with pytest.raises(InputError, match="outside of its folder"):
        prepare("decathlon", folder, tmp_path / "s")


def test_every_fault_of_a_table_is_listed(raw: Path) -> None:
    table = raw / "cases.csv"
    lines = ["image,mask,case,group,part"]
    lines += [f"img/{a.name},label/{b.name},c{a.name[3:7]},," for a, b in pairs_of(raw)]
    lines.append(lines[-1])
    table.write_text("\n".join(lines), encoding="utf-8")
    faults = break_pairs(pairs_of(raw))
    report = check(table)
    assert report.name == "table"
    # A missing file is named in full; the row that stands twice is the table's fault.
    del faults["two cases with one id"]
    all_named(report, {**faults, "listed twice": ("same-id", table)})


def test_every_fault_of_transunets_files_is_listed(tmp_path: Path) -> None:
    folder = write_abdomen(tmp_path / "Synapse", cases=6, size=32, slices=6, layout="transunet")
    volumes = sorted((folder / "test_vol_h5").iterdir())
    truncate(volumes[0])
    twin = volumes[1].with_name(volumes[1].name.replace(".npy", ""))
    shutil.copy(volumes[1], twin)
    slices = sorted((folder / "train_npz").iterdir())
    first = [p for p in slices if p.name[:8] == slices[0].name[:8]]
    other = [p for p in slices if p.name[:8] == slices[-1].name[:8]]
    with np.load(other[3]) as held:
        np.savez(other[3], image=held["image"], label=np.full_like(held["label"], 9))
    with np.load(first[1]) as held:
        arrays = {name: held[name] for name in held}
    np.savez(first[1], image=arrays["image"], label=np.full_like(arrays["label"], 9))
    np.savez(other[1], image=arrays["image"][:-2], label=arrays["label"][:-2])
    renamed = other[2].with_name("slice2.npz")
    other[2].rename(renamed)
    report = check(tmp_path)
    assert (report.name, report.layout) == ("synapse", "transunet")
    all_named(
        report,
        {
            "truncated": ("damaged", volumes[0]),
            "two of one id": ("same-id", twin),
            "wrong values": ("labels", first[1]),
            "another shape": ("size", other[1]),
            "wrong values in the same case": ("labels", other[3]),
            "renamed": ("unused", renamed),
        },
    )
    assert any("no slice 2" in p.found for p in report.problems if p.kind == "missing")


def test_every_slice_without_a_label_is_listed(tmp_path: Path) -> None:
    folder = write_abdomen(tmp_path / "Synapse", cases=2, size=32, slices=6, layout="transunet")
    slices = sorted((folder / "train_npz").iterdir())[1:4:2]
    for path in slices:
        with np.load(path) as held:
            np.savez(path, image=held["image"])
    lost = [p.file for p in check(folder).errors if p.kind == "missing" and p.file is not None]
    assert sorted(lost) == slices


def test_every_fault_of_a_folder_is_listed(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "photos", images=10, size=(24, 32))
    images = sorted((folder / "images").iterdir())
    masks = sorted((folder / "masks").iterdir())
    truncate(images[0])
    renamed = masks[1].with_name("other.png")
    masks[1].rename(renamed)
    Image.fromarray(seven(np.zeros((24, 32), np.uint8))).save(masks[2])
    Image.fromarray(np.zeros((20, 32), np.uint8)).save(masks[3])
    huge_picture(images[4], 60000)
    masks[5].unlink()
    truncate(masks[6])
    twin = images[7].with_suffix(".bmp")
    Image.open(images[7]).save(twin)
    shutil.copy(images[8], images[9])
    report = check(folder, classes=["skin", "lesion", "hair"])
    assert report.name == "folder"
    all_named(
        report,
        {
            "truncated": ("damaged", images[0]),
            "renamed": ("missing", images[1]),
            "renamed, itself": ("unused", renamed),
            "wrong values": ("labels", masks[2]),
            "another shape": ("size", masks[3]),
            "huge header": ("damaged", images[4]),
            "missing mask": ("missing", images[5]),
            "truncated mask": ("damaged", masks[6]),
            "the same pictures": ("same-content", images[9]),
        },
    )
    twins = {p.file for p in report.problems if p.kind == "same-id"}
    assert twins & {twin, images[7]}


def test_every_fault_of_channels_is_listed(tmp_path: Path) -> None:
    made = MAKERS["nnunet"](tmp_path / "Dataset001_two")
    about = json.loads((made.source / "dataset.json").read_text(encoding="utf-8"))
    about["channel_names"] = {"0": "T1", "1": "T2"}
    (made.source / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    second = []
    for part in made.parts:
        second.append(part.image.with_name(part.image.name.replace("_0000", "_0001")))
        shutil.copy(part.image, second[-1])
    assert not [p for p in check(made.source).problems if p.file is not None]
    second[0].unlink()
    rewrite(second[1], lambda v: v[:-1])
    rewrite(second[2], affine=turned(second[2]))
    truncate(second[3])
    second[4].rename(second[4].with_name("other_0001.nii.gz"))
    faults = {
        "missing": ("missing", made.parts[0].image),
        "another shape": ("size", second[1]),
        "elsewhere": ("geometry", second[2]),
        "truncated": ("damaged", second[3]),
        "renamed": ("missing", made.parts[4].image),
        "renamed, itself": ("unused", second[4].with_name("other_0001.nii.gz")),
    }
    all_named(check(made.source), faults)


def test_a_channel_too_many_is_the_fault_of_its_case_alone(tmp_path: Path) -> None:
    made = MAKERS["nnunet"](tmp_path / "Dataset001_one")
    extra = made.parts[3].image.with_name(made.parts[3].image.name.replace("_0000", "_0001"))
    shutil.copy(made.parts[3].image, extra)
    report = check(made.source)
    assert [p.file for p in report.errors if p.file is not None] == [extra]
    assert report.cases == len(made.parts) - 1
    said = prepare("nnunet", made.source, tmp_path / "s").missing
    assert f"imagesTr: {extra.name} is beyond the channels, the case is left out" in said


def test_every_fault_of_dicom_series_is_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["image,mask,case"]
    folders = []
    for n in range(9):
        volume = rng.integers(0, 900, (5, 6, 7)).astype(np.int16)
        folders.append(write_series(tmp_path / f"series{n}", volume))
        case = read_case(folders[-1])
        label = np.ones((case.slices, *case.size), np.uint8)
        label[0] = 0
        write_label(label, case, tmp_path / f"l{n}.nii")
        lines.append(f"series{n},l{n}.nii,case{n}")
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    assert not [p for p in check(table).problems if p.file is not None]
    slices = [sorted(folder.iterdir()) for folder in folders]
    slices[0][3].unlink()  # within the stack
    shutil.copy(slices[1][2], folders[1] / "again.dcm")
    truncate(slices[2][2])
    slices[3][2].write_bytes(b"")
    data = pydicom.dcmread(slices[4][2])
    data.Rows = data.Columns = 60000
    data.save_as(slices[4][2])
    data = pydicom.dcmread(slices[5][2])
    data.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
    data.save_as(slices[5][2])
    rewrite(tmp_path / "l6.nii", affine=turned(tmp_path / "l6.nii"))
    rewrite(tmp_path / "l7.nii", lambda v: v[:-1])
    shutil.rmtree(folders[8])
    report = check(table)
    faults = {
        "elsewhere": ("geometry", tmp_path / "l6.nii"),
        "another shape": ("size", tmp_path / "l7.nii"),
        "truncated": ("damaged", slices[2][2]),
        "empty": ("damaged", slices[3][2]),
        "huge header": ("damaged", slices[4][2]),
        "no series": ("missing", folders[8]),
    }
    all_named(report, faults)
    said = {p.file: p.found for p in report.problems if p.kind == "layout"}
    assert "missing" in said[folders[0]], said
    assert "doubled" in said[folders[1]], said
    assert "orientation" in said[slices[5][2]], said
    # One fault a case: its slices are not compared as if they were channels.
    assert len([p for p in report.problems if p.case.startswith("case")]) == 8, report.problems
