from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.datasets.published_splits import load_split
from segweave.datasets.synapse import CARD, THIRTEEN, TO_EIGHT
from segweave.errors import InputError, UsageError
from segweave.phantoms.abdomen import write_abdomen
from tests.datasets.broken import rewrite, turned
from tests.datasets.volumes import load


def test_the_published_split_of_synapse() -> None:
    split = load_split("synapse")
    assert {part: len(names) for part, names in split.parts.items()} == {
        "train": 18, "valid": 0, "test": 12,
    }  # fmt: skip
    names = sorted(name for part in split.parts.values() for name in part)
    assert names == [f"case{n:04d}" for n in (*range(1, 11), *range(21, 41))]
    assert "TransUNet" in split.source


def test_the_raw_layout(abdomens: Path, synapse: Store) -> None:
    assert synapse.target.names == CARD.classes
    assert len(synapse.ids) == 9
    assert set(synapse.splits) == {"18-12", "15-3-12"}
    assert {part: len(ids) for part, ids in synapse.splits["18-12"].items()} == {
        "train": 5, "valid": 0, "test": 4,
    }  # fmt: skip
    assert synapse.splits["15-3-12"]["test"] == synapse.splits["18-12"]["test"]
    for id in synapse.ids:
        case, number = synapse.case(id), id.removeprefix("case")
        image = nibabel.load(abdomens / "img" / f"img{number}.nii.gz")
        released = load(abdomens / "label" / f"label{number}.nii.gz")
        np.testing.assert_array_equal(
            case.image[:, 0], load(abdomens / "img" / f"img{number}.nii.gz")
        )
        assert case.image.dtype == np.int16
        assert case.spacing == pytest.approx(image.header.get_zooms()[::-1], rel=1e-5)
        assert case.label is not None
        assert set(np.unique(released)) >= {0, 1, 2, 3, 6, 7, 8, 11}
        for old in range(14):
            np.testing.assert_array_equal(case.label[released == old], TO_EIGHT.get(old, 0))


def test_all_thirteen_organs(raw: Path, tmp_path: Path) -> None:
    prepare("synapse", raw.parent.parent, tmp_path / "s", organs="13")
    store = Store(tmp_path / "s")
    assert store.target.names == THIRTEEN
    case = store.case(store.ids[0])
    number = case.id.removeprefix("case")
    np.testing.assert_array_equal(case.label, load(raw / "label" / f"label{number}.nii.gz"))
    for old, new in TO_EIGHT.items():
        assert THIRTEEN[old] == CARD.classes[new]


def test_what_is_missing_of_synapse_is_named(raw: Path, tmp_path: Path) -> None:
    image = sorted((raw / "img").iterdir())[0]
    image.unlink()
    report = prepare("synapse", raw, tmp_path / "s")
    said = "\n".join(report.missing)
    assert "label0001.nii.gz has no img0001.nii.gz" in said
    assert "22 cases are not there: case0001" in said
    assert "3779 slices are expected" in said
    label = sorted((raw / "label").iterdir())[1]
    rewrite(label, lambda v: np.where(v == 6, 44, v).astype(np.uint8))
    with pytest.raises(InputError, match=r"\[44\]"):
        prepare("synapse", raw, tmp_path / "t")
    rewrite(label, lambda v: np.where(v == 44, 6, v).astype(np.uint8), affine=turned(label))
    with pytest.raises(InputError, match="mm away"):
        prepare("synapse", raw, tmp_path / "t")


def test_transunets_layout_holds_the_same_cases(
    abdomens: Path, synapse: Store, tmp_path: Path
) -> None:
    folder = write_abdomen(
        tmp_path / "data" / "Synapse", cases=9, size=40, slices=5, layout="transunet"
    )
    names = (folder / "lists_Synapse" / "test_vol.txt").read_text(encoding="utf-8").split()
    assert names == synapse.splits["18-12"]["test"]
    report = prepare("synapse", tmp_path, tmp_path / "s")
    assert (report.layout, report.cases) == ("transunet", 9)
    assert any("pixels" in warning for warning in report.warnings)
    store = Store(tmp_path / "s")
    assert store.splits == synapse.splits
    for id in store.ids:
        ours, theirs = store.case(id), synapse.case(id)
        np.testing.assert_array_equal(ours.label, theirs.label)  # type: ignore[arg-type]
        scaled = (np.clip(theirs.image, -125, 275) + 125) / 400
        np.testing.assert_allclose(ours.image, scaled, atol=1e-6)
        assert ours.spacing is None
        assert ours.gaps == ()


def test_a_missing_slice_interrupts_the_stack(tmp_path: Path) -> None:
    folder = write_abdomen(tmp_path / "d", cases=2, size=32, slices=6, layout="transunet")
    slices = sorted((folder / "train_npz").iterdir())
    slices[2].unlink()
    report = prepare("synapse", folder, tmp_path / "s")
    assert any("no slice 2" in line for line in report.missing)
    store = Store(tmp_path / "s")
    assert store.case(slices[0].name[:8]).gaps == (2,)
    both = folder / "test_vol_h5" / f"{slices[0].name[:8]}.npy.h5"
    with h5py.File(both, "w") as file:
        file["image"], file["label"] = np.ones((3, 8, 8), np.float32), np.zeros((3, 8, 8))
    report = prepare("synapse", folder, tmp_path / "t")
    assert any("leak" in line for line in report.warnings)
    assert Store(tmp_path / "t").case(slices[0].name[:8]).slices == 3


def test_wrong_options_of_synapse(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="transunet"):
        prepare("synapse", raw, tmp_path / "s", layout="transunett")
    with pytest.raises(InputError, match="nothing like it"):
        prepare("synapse", tmp_path / "RawData" / "Training" / "img", tmp_path / "s")
    write_abdomen(raw, cases=1, size=32, slices=3, layout="transunet")
    with pytest.raises(UsageError, match="raw and transunet"):
        prepare("synapse", raw, tmp_path / "s")
    with pytest.raises(UsageError, match="13 organs"):
        prepare("synapse", raw, tmp_path / "s", layout="transunet", organs="13")


@pytest.mark.real
def test_the_real_slab_in_synapses_layout(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "synapse-layout"
    report = prepare("synapse", folder, tmp_path / "s")
    assert (report.layout, report.cases, report.slices) == ("transunet", 1, 30)
    case = Store(tmp_path / "s").case("case9001")
    assert case.image.shape == (30, 1, 101, 122)
    with h5py.File(folder / "test_vol_h5" / "case9001.npy.h5", "r") as file:
        np.testing.assert_array_equal(case.image[:, 0], file["image"][()])
        np.testing.assert_array_equal(case.label, file["label"][()])
    assert case.label is not None
    assert set(np.unique(case.label)) == set(range(9))
    # The slices alone: every third one.
    slices = tmp_path / "slices"
    shutil.copytree(folder / "train_npz", slices / "train_npz")
    report = prepare("synapse", slices, tmp_path / "t")
    alone = Store(tmp_path / "t").case("case9001")
    assert alone.slices == 10
    assert alone.gaps == tuple(range(1, 10))
    np.testing.assert_array_equal(alone.image, case.image[::3])
    np.testing.assert_array_equal(alone.label, case.label[::3])  # type: ignore[index]


@pytest.mark.real
def test_the_real_slab_through_a_table(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "synapse-layout"
    table = tmp_path / "cases.csv"
    table.write_text(
        f"image;mask\n{folder / 'case9001_ct.nii.gz'};{folder / 'case9001_label.nii.gz'}\n",
        encoding="utf-8",
    )
    report = prepare("table", table, tmp_path / "s")
    assert (report.cases, report.slices) == (1, 30)
    case = Store(tmp_path / "s").case("case9001_ct")
    assert case.spacing == pytest.approx((3, 3, 3))
    assert case.label is not None
    assert [int((case.label == k).sum()) for k in (1, 5, 8)] == [997, 38634, 4675]


def test_the_phantom_is_what_it_says(abdomens: Path, tmp_path: Path) -> None:
    again = write_abdomen(tmp_path / "again", cases=9, size=40, slices=5)
    for path in sorted(abdomens.rglob("*.nii.gz")):
        assert path.read_bytes() == (again / path.relative_to(abdomens)).read_bytes()
    other = write_abdomen(tmp_path / "other", cases=5, seed=1, size=48, slices=6)
    name = "img/img0001.nii.gz"
    assert (other / name).read_bytes() != (again / name).read_bytes()
    values, label = (load(abdomens / p) for p in (name, "label/label0001.nii.gz"))
    assert values.dtype == np.int16
    mean = {id: float(values[label == id].mean()) for id in TO_EIGHT}
    # Contrast: kidneys and aorta bright, gall dark, fat and air below.
    assert min(mean[2], mean[3], mean[8]) > mean[6] > mean[4]
    assert mean[4] < 60
    assert values.min() < -900
    # In a case's axes the patient's right is on the left: liver and gallbladder are there.
    columns = {id: float(np.nonzero(label == id)[2].mean()) for id in TO_EIGHT}
    assert columns[6] < 20 < columns[1]
    assert columns[2] < 20 < columns[3]
    rows = {id: float(np.nonzero(label == id)[1].mean()) for id in TO_EIGHT}
    assert rows[7] < rows[8] < 34
    with pytest.raises(UsageError, match="at least 3 slices"):
        write_abdomen(tmp_path / "x", slices=2)
