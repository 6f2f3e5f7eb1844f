"""Real images: what is converted is what is there."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest

from segweave.data.cache import Resized
from segweave.data.inputs import network_slice
from segweave.data.specs import InputSpec
from segweave.data.store import Store
from segweave.datasets import PrepareReport, prepare

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def whole(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, PrepareReport]:
    out = tmp_path_factory.mktemp("acdc") / "store"
    report = prepare("acdc", real_data / "acdc" / "ACDC_training_volumes", out)
    return Store(out), report


@pytest.mark.slow
def test_all_of_acdc(whole: tuple[Store, PrepareReport], real_data: Path) -> None:
    store, report = whole
    assert (report.groups, report.cases, report.slices) == (100, 200, 1902)
    assert report.complete
    same = [line for line in report.warnings if "have the same image" in line]
    assert len(same) == 2
    assert all("patient074" in line and "patient076" in line for line in same)
    parts = {
        part: sum(store.entry(id).slices for id in ids)
        for part, ids in store.splits["70-10-20"].items()
    }
    assert parts == {"train": 1304, "valid": 182, "test": 416}
    with (real_data / "acdc" / "volumes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200
    unlabelled = 0
    for row in rows:
        case = store.case(f"{row['patient']}_{row['phase']}")
        assert case.attributes["diagnosis"] == row["group"]
        assert (case.slices, *case.size) == tuple(
            int(row[key]) for key in ("slices", "full_h", "full_w")
        )
        assert case.spacing == pytest.approx(
            tuple(float(row[f"spacing_{axis}_mm"]) for axis in "zyx"), abs=1e-5
        )
        assert case.label is not None
        unlabelled += int((case.label.max(axis=(1, 2)) == 0).sum())
    assert unlabelled == 61


@pytest.mark.slow
def test_volumes_equal_their_files(whole: tuple[Store, PrepareReport], real_data: Path) -> None:
    store, _ = whole
    for path in sorted((real_data / "acdc" / "ACDC_training_volumes").iterdir())[::40]:
        with h5py.File(path) as file:
            case = store.case(f"{file.attrs['patient']}_{file.attrs['phase']}")
            np.testing.assert_array_equal(case.image[:, 0], file["image"][()])
            np.testing.assert_array_equal(case.label, file["label"][()])  # type: ignore[arg-type]


@pytest.mark.slow
def test_resized_copies_are_what_prediction_computes(whole: tuple[Store, PrepareReport]) -> None:
    store, _ = whole
    spec = InputSpec(size=(64, 64))
    resized = Resized(store, spec, store.ids[::50])
    for id in resized.ids:
        case = store.case(id)
        np.testing.assert_array_equal(resized[id].image[2], network_slice(case, 2, spec))
        assert abs(np.mean(resized[id].image)) < 0.2


def test_raw_files_equal_h5_volumes(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "acdc" / "nifti"
    report = prepare("acdc", source, tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("raw", 3, 6)
    store = Store(tmp_path / "s")
    assert set(store.groups.values()) == {"patient041", "patient090", "patient094"}
    volumes = real_data / "acdc" / "ACDC_training_volumes"
    for id in store.ids:
        case = store.case(id)
        name = f"{case.group}_frame{case.attributes['frame']:02d}.h5"
        with h5py.File(volumes / name) as file:
            assert file.attrs["phase"] == case.attributes["phase"]
            assert file.attrs["lossless"]
            np.testing.assert_array_equal(case.image[:, 0], file["image"][()])
            np.testing.assert_array_equal(case.label, file["label"][()])  # type: ignore[arg-type]
            assert case.spacing == pytest.approx(tuple(file.attrs["spacing_zyx_mm"]))


def test_npz_files_equal_h5_volumes(real_data: Path, tmp_path: Path) -> None:
    report = prepare("acdc", real_data / "acdc" / "npz_layout", tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("npz", 3, 6)
    store = Store(tmp_path / "s")
    # The folders agree with the split that ships.
    assert {k: len(v) for k, v in store.splits["70-10-20"].items()} == {
        "train": 2,
        "valid": 2,
        "test": 2,
    }
    assert not any("split" in warning for warning in report.warnings)
    volumes = real_data / "acdc" / "ACDC_training_volumes"
    frames = {("patient041", "ED"): 1, ("patient049", "ES"): 11, ("patient090", "ED"): 4}
    for (patient, phase), frame in frames.items():
        case = store.case(f"{patient}_{phase}")
        with h5py.File(volumes / f"{patient}_frame{frame:02d}.h5") as file:
            image = file["image"][()].astype(np.float64)
            np.testing.assert_array_equal(case.label, file["label"][()])  # type: ignore[arg-type]
        scaled = (image - image.min()) / (image.max() - image.min())
        np.testing.assert_allclose(case.image[:, 0], scaled, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "masks", "count"),
    [
        ("kvasir-seg/images", "kvasir-seg/masks", 100),
        ("isic2018/images_384", "isic2018/masks_384", 55),
        ("etis-larib/images", "etis-larib/masks", 20),
    ],
)
def test_folders_of_real_images(
    real_data: Path, tmp_path: Path, images: str, masks: str, count: int
) -> None:
    report = prepare("folder", real_data / images, tmp_path / "s", masks=real_data / masks)
    assert report.cases == count
    assert report.complete
    store = Store(tmp_path / "s")
    assert store.target.kind == "binary"
    for id in store.ids:
        label = store.case(id).label
        assert label is not None
        assert label.max() == 1


def test_instance_masks_beside_their_images(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "glas"
    report = prepare("folder", source, tmp_path / "s", masks=source, mask_threshold=0)
    assert report.cases == 24
    assert report.complete
    assert Store(tmp_path / "s").target.kind == "binary"
