from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.data.check import check
from segweave.data.export_nnunet import write_nnunet
from segweave.data.phantoms.abdomen import write_abdomen
from segweave.data.phantoms.blobs import write_blobs
from segweave.data.phantoms.cardiac import write_cardiac
from segweave.data.phantoms.gland import write_glands
from segweave.data.phantoms.polyp import write_polyps
from segweave.data.phantoms.skin import write_skin
from segweave.data.sets import prepare
from segweave.data.store import Store
from segweave.errors import InputError
from segweave.factories import build
from segweave.registry import datasets
from tests.data.broken import break_pairs, seven, truncate
from tests.data.volumes import all_named, pairs_of


def test_every_fault_of_synapse_is_listed(raw: Path) -> None:
    faults = break_pairs(pairs_of(raw))
    report = check(raw)
    all_named(report, faults)
    assert (report.failed, report.cases) == (4, 3)
    apart = next(p for p in report.problems if p.kind == "geometry")
    assert apart.found.startswith("corners that lie up to")
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
            "wrong values": ("labels", first[0]),
            "another shape": ("size", other[1]),
            "renamed": ("unused", renamed),
        },
    )
    assert any("no slice 2" in p.found for p in report.problems if p.kind == "missing")


def _huge_png(path: Path) -> None:
    """A picture whose header declares 60000 × 60000 pixels."""
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def test_every_fault_of_a_folder_is_listed(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "photos", images=10, size=(24, 32))
    images = sorted((folder / "images").iterdir())
    masks = sorted((folder / "masks").iterdir())
    truncate(images[0])
    renamed = masks[1].with_name("other.png")
    masks[1].rename(renamed)
    Image.fromarray(seven(np.zeros((24, 32), np.uint8))).save(masks[2])
    Image.fromarray(np.zeros((20, 32), np.uint8)).save(masks[3])
    _huge_png(images[4])
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


PICTURES = {
    "isic2018": ("isic2018", lambda out: write_skin(out, 14, size=(24, 32))),
    "ph2": ("ph2", lambda out: write_skin(out, 10, layout="ph2", size=(24, 32))),
    "cvc-clinicdb": ("cvc-clinicdb", lambda out: write_polyps(out, 6, 3, size=(24, 32))),
    "glas": ("glas", lambda out: write_glands(out, 10, size=(48, 48))),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_fault_of_pictures_is_listed(tmp_path: Path, name: str) -> None:
    called, write = PICTURES[name]
    folder = tmp_path / called
    write(folder)
    assert check(folder, name).failed == 0
    plan = build("planning", datasets.entry(name), datasets.card(name).options, {"source": folder})
    masks = [item.files[-1] for item in plan.items]
    if name == "cvc-clinicdb":
        masks = sorted((folder / "Ground Truth").iterdir())
    assert len(masks) >= 5
    truncate(masks[0])
    renamed = masks[1].with_name(f"odd{masks[1].suffix}")
    masks[1].rename(renamed)
    with Image.open(masks[2]) as picture:
        picture.resize((picture.width, picture.height - 4)).save(masks[2])
    masks[3].unlink()
    twin = masks[4].with_suffix(".tif" if masks[4].suffix != ".tif" else ".png")
    with Image.open(masks[4]) as picture:
        picture.save(twin)
    report = check(folder, name)
    all_named(report, {"truncated": ("damaged", masks[0]), "renamed": ("unused", renamed)})
    said = " ".join(f"{p.found} {p.case} {p.file}" for p in report.errors)
    for mask in (masks[2], masks[3], masks[4]):
        assert mask.stem.split("_")[0] in said, (mask, report.problems)
    assert {p.file for p in report.problems if p.kind == "same-id"} & {twin, masks[4]}
