from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from segweave.data.store import Store
from segweave.datasets import PrepareReport, prepare
from segweave.datasets.acdc import CARD
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.phantoms.cardiac import write_cardiac
from segweave.registry import datasets
from segweave.workflow.training_plan import plan_training


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cardiac(
        tmp_path_factory.mktemp("phantom") / "raw", patients=3, size=(40, 36), slices=4
    )


@pytest.fixture
def raw(phantom: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(phantom, tmp_path / "training")


def _stem(raw: Path) -> tuple[Path, str]:
    """The first patient's folder and the stem of its ED frame."""
    patient = sorted(raw.iterdir())[0]
    return patient, f"{patient.name}_frame01"


def _change(path: Path, change: Any) -> None:
    """Rewrite a NIfTI file's voxels, its header kept."""
    file = nibabel.load(path)
    values = change(np.asarray(file.dataobj))
    header = file.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    raw = bytes(header.binaryblock) + bytes(4) + values.tobytes(order="F")
    path.write_bytes(gzip.compress(raw))


def test_the_card_is_registered() -> None:
    assert datasets.card("acdc") == CARD
    assert CARD.expected == {"groups": 100, "cases": 200, "slices": 1902}


def test_the_raw_layout(phantom: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    report = prepare("acdc", phantom, tmp_path / "s", progress=lambda *a: calls.append(a))
    assert isinstance(report, PrepareReport)
    assert (report.layout, report.groups, report.cases) == ("raw", 3, 6)
    assert calls[-1] == (6, 6, "")
    assert len(calls) == 7
    store = Store(tmp_path / "s")
    assert store.checksum == report.checksum
    assert store.target.names == CARD.classes
    assert sum(len(ids) for ids in store.splits["70-10-20"].values()) == 6
    assert set(store.splits) == {"70-10-20", "fold-0", "fold-1", "fold-2"}
    for id in store.ids:
        case = store.case(id)
        assert id == f"{case.group}_{case.attributes['phase']}"
        assert case.attributes["diagnosis"] in ("NOR", "MINF", "DCM", "HCM", "RV")
        path = phantom / case.group / f"{case.group}_frame{case.attributes['frame']:02d}.nii.gz"
        file = nibabel.load(path)
        np.testing.assert_array_equal(case.image[:, 0], np.asarray(file.dataobj).T)
        assert case.image.dtype == np.int16
        # The affine's steps are 1; millimetres are those of pixdim.
        np.testing.assert_allclose(np.diag(file.affine)[:3], (-1, -1, 1))
        assert case.spacing == pytest.approx(tuple(file.header["pixdim"][3:0:-1]))
        assert case.affine is not None
        np.testing.assert_allclose(np.linalg.norm(case.affine[:3, :3], axis=0), case.spacing)
        assert case.provenance is not None
        assert len(case.provenance.sha256) == 64


@pytest.mark.parametrize("above", [".", "database"])
def test_the_official_test_set_is_a_split_of_its_own(
    phantom: Path, tmp_path: Path, above: str
) -> None:
    database = tmp_path / "ACDC" / above
    shutil.copytree(phantom, database / "training")
    trained = sorted(path.name for path in phantom.iterdir())
    for old, new in zip(trained, ("patient101", "patient150", "patient123"), strict=True):
        folder = shutil.copytree(phantom / old, database / "testing" / new)
        for file in folder.glob(f"{old}_*"):
            file.rename(folder / file.name.replace(old, new))
    report = prepare("acdc", tmp_path / "ACDC", tmp_path / "s")
    assert (report.groups, report.cases) == (6, 12)
    store = Store(tmp_path / "s")
    split = store.splits["official"]
    official = {part: {store.groups[id] for id in ids} for part, ids in split.items()}
    assert official == {"train": {*trained}, "test": {"patient101", "patient150", "patient123"}}
    assert "144 patients" in str(report.missing)
    for name, parts in store.splits.items():
        if name != "official":
            # Choices made in them must not see the official test patients.
            assert {store.groups[id] for ids in parts.values() for id in ids} == {*trained}
    alone = prepare("acdc", database / "testing", tmp_path / "alone")
    assert alone.splits == {"official": {"train": 0, "test": 6}}
    train = partial(plan_training, "acdc-unet-128", out=tmp_path / "r")
    sets = ["data.split=official"]
    with pytest.raises(UsageError, match=r"data\.validation=null"):
        train(tmp_path / "s", sets=sets)
    sets.append("data.validation=null")
    train(tmp_path / "s", sets=sets)
    with pytest.raises(UsageError, match="it is for testing"):
        train(tmp_path / "alone", sets=sets)


def test_a_patient_in_two_folders_is_refused(phantom: Path, tmp_path: Path) -> None:
    for part in ("training", "testing"):
        shutil.copytree(phantom, tmp_path / "ACDC" / part)
    with pytest.raises(InputError, match="each patient once"):
        prepare("acdc", tmp_path / "ACDC", tmp_path / "s")


def test_what_is_missing_is_reported(raw: Path, tmp_path: Path) -> None:
    patient, stem = _stem(raw)
    (patient / f"{stem}_gt.nii.gz").unlink()
    report = prepare("acdc", raw.parent, tmp_path / "s")
    assert not report.complete
    said = "\n".join(report.missing)
    assert f"{patient.name} ED: no {stem}_gt.nii.gz, left out" in said
    assert "97 patients are not there: patient" in said
    assert "200 cases are expected, 5 are there" in said
    assert report.cases == 5
    with pytest.raises(InputError, match=f"no {stem}_gt"):
        prepare("acdc", raw, tmp_path / "t", strict=True)
    assert not (tmp_path / "t").exists()


def _label_shape(patient: Path, stem: str) -> None:
    _change(patient / f"{stem}_gt.nii.gz", lambda v: v[:-1])


def _unknown_id(patient: Path, stem: str) -> None:
    _change(patient / f"{stem}_gt.nii.gz", lambda v: np.where(v == 3, 7, v).astype(np.uint8))


def _nan(patient: Path, stem: str) -> None:
    _change(
        patient / f"{stem}.nii.gz", lambda v: np.where(v == v.max(), np.nan, v).astype(np.float32)
    )


def _truncated(patient: Path, stem: str) -> None:
    path = patient / f"{stem}.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def _empty(patient: Path, stem: str) -> None:
    (patient / f"{stem}.nii.gz").write_bytes(b"")


def _info(patient: Path, stem: str) -> None:
    (patient / "Info.cfg").write_text("ED: first\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (_label_shape, "_gt.nii.gz", "size|shape"),
        (_unknown_id, ".nii.gz", r"\[7\]"),
        (_nan, ".nii.gz", "NaN|finite"),
        (_truncated, ".nii.gz", "what to do"),
        (_empty, ".nii.gz", "0 bytes"),
        (_info, "Info.cfg", "ED: 1"),
    ],
)
def test_damaged_input_is_named_and_leaves_no_store(
    raw: Path, tmp_path: Path, damage: Any, file: str, message: str
) -> None:
    patient, stem = _stem(raw)
    damage(patient, stem)
    with pytest.raises(InputError, match=message) as caught:
        prepare("acdc", raw, tmp_path / "s")
    assert caught.value.file is not None
    assert str(caught.value.file).endswith(file)
    assert caught.value.file.parent == patient
    assert not (tmp_path / "s").exists()


def test_an_interrupted_conversion_continues(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int, id: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("acdc", phantom, tmp_path / "s", progress=stop)
    assert not (tmp_path / "s").exists()
    report = prepare("acdc", phantom, tmp_path / "s")
    assert report.resumed == 4
    assert report.checksum == prepare("acdc", phantom, tmp_path / "whole").checksum
    # A changed source is read again.
    with pytest.raises(KeyboardInterrupt):
        prepare("acdc", phantom, tmp_path / "t", progress=stop)
    changed = shutil.copytree(phantom, tmp_path / "changed")
    patient, stem = _stem(changed)
    _change(patient / f"{stem}.nii.gz", lambda v: v + np.int16(1))
    again = prepare("acdc", changed, tmp_path / "t")
    assert again.resumed == 3
    assert again.checksum != report.checksum


def test_an_existing_result_is_never_damaged(raw: Path, tmp_path: Path) -> None:
    first = prepare("acdc", raw, tmp_path / "s")
    with pytest.raises(UsageError, match="exists"):
        prepare("acdc", raw, tmp_path / "s")
    patient, stem = _stem(raw)
    _truncated(patient, stem)
    with pytest.raises(InputError):
        prepare("acdc", raw, tmp_path / "s", overwrite=True)
    store = Store(tmp_path / "s")
    assert store.checksum == first.checksum
    assert len(list(store.verify())) == 6


def test_without_info_the_first_frame_is_ed(raw: Path, tmp_path: Path) -> None:
    patient, _ = _stem(raw)
    (patient / "Info.cfg").unlink()
    report = prepare("acdc", raw, tmp_path / "s")
    assert report.cases == 6
    assert any(patient.name in warning for warning in report.warnings)
    assert Store(tmp_path / "s").case(f"{patient.name}_ED").attributes["frame"] == 1


def _volumes(raw: Path) -> Iterator[tuple[str, int, Any, Any, Any]]:
    for patient in sorted(raw.iterdir()):
        for path in sorted(patient.glob("*_gt.nii.gz")):
            frame = int(path.name[16:18])
            image = nibabel.load(path.with_name(path.name.replace("_gt", "")))
            yield (
                patient.name,
                frame,
                np.asarray(image.dataobj).T,
                np.asarray(nibabel.load(path).dataobj).T,
                image.header["pixdim"][3:0:-1],
            )


@pytest.mark.parametrize("named", [True, False])
def test_the_h5_layout_gives_the_same_cases(phantom: Path, tmp_path: Path, named: bool) -> None:
    folder = tmp_path / "ACDC_training_volumes"
    folder.mkdir()
    for patient, frame, image, label, spacing in _volumes(phantom):
        with h5py.File(folder / f"{patient}_frame{frame:02d}.h5", "w") as file:
            file["image"], file["label"] = image, label
            if named:
                file.attrs.update(
                    phase="ED" if frame == 1 else "ES", group="NOR", spacing_zyx_mm=spacing,
                    lossless=frame == 1,
                )  # fmt: skip
    report = prepare("acdc", tmp_path, tmp_path / "s")
    assert (report.layout, report.cases) == ("h5", 6)
    assert any("loss" in warning for warning in report.warnings) == named
    prepare("acdc", phantom, tmp_path / "r")
    ours, theirs = Store(tmp_path / "s"), Store(tmp_path / "r")
    assert ours.ids == theirs.ids
    assert ours.splits == theirs.splits
    for id in ours.ids:
        one, other = ours.case(id), theirs.case(id)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)  # type: ignore[arg-type]
        if named:
            assert one.spacing == pytest.approx(other.spacing)
            assert one.attributes["diagnosis"] == "NOR"
        else:
            assert one.spacing is None


def _write_npz(raw: Path, out: Path) -> None:
    parts = ["train", "valid", "test"]
    for number, patient in enumerate(sorted(p.name for p in raw.iterdir())):
        folder = out / parts[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame, image, label, _ in _volumes(raw):
            if name != patient:
                continue
            phase = "ED" if frame == 1 else "ES"
            stem = f"case_{name[7:]}"
            own = image.astype(np.float32) / image.max()
            if folder.name == "test":
                np.savez(folder / f"{stem}_volume_{phase}.npz", img=own, label=label)
                continue
            for k in range(len(own)):
                np.savez(folder / f"{stem}_slice{phase}_{k}.npz", img=own[k], label=label[k])


def test_the_npz_layout_gives_the_same_labels(phantom: Path, tmp_path: Path) -> None:
    _write_npz(phantom, tmp_path / "npz")
    report = prepare("acdc", tmp_path / "npz", tmp_path / "s")
    assert (report.layout, report.cases) == ("npz", 6)
    assert any("pixels" in warning for warning in report.warnings)
    prepare("acdc", phantom, tmp_path / "r")
    ours, theirs = Store(tmp_path / "s"), Store(tmp_path / "r")
    assert ours.ids == theirs.ids
    for id in ours.ids:
        np.testing.assert_array_equal(ours.case(id).label, theirs.case(id).label)  # type: ignore[arg-type]
        assert ours.case(id).stack == "space"
        assert ours.case(id).image.dtype == np.float32


def test_a_missing_npz_slice_is_a_gap(phantom: Path, tmp_path: Path) -> None:
    _write_npz(phantom, tmp_path / "npz")
    path = next((tmp_path / "npz" / "train").glob("*_sliceED_1.npz"))
    path.unlink()
    report = prepare("acdc", tmp_path / "npz", tmp_path / "s")
    patient = f"patient{path.name[5:8]}"
    assert f"{patient} ED: no slice 1" in report.missing
    assert Store(tmp_path / "s").case(f"{patient}_ED").gaps == (1,)


def test_npz_slices_of_two_sizes_are_refused(phantom: Path, tmp_path: Path) -> None:
    _write_npz(phantom, tmp_path / "npz")
    path = next((tmp_path / "npz" / "train").glob("*_sliceED_1.npz"))
    np.savez(path, img=np.zeros((5, 6), np.float32), label=np.zeros((5, 6), np.uint8))
    with pytest.raises(InputError, match="5 × 6"):
        prepare("acdc", tmp_path / "npz", tmp_path / "s")


def test_sources_that_are_none(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="looking for ACDC"):
        prepare("acdc", tmp_path / "empty", tmp_path / "s")
    with pytest.raises(InputError, match="nothing there"):
        prepare("acdc", tmp_path / "absent", tmp_path / "s")
    with pytest.raises(InputError, match="the layout npz"):
        prepare("acdc", phantom, tmp_path / "s", layout="npz")
    with pytest.raises(UsageError, match="layout"):
        prepare("acdc", phantom, tmp_path / "s", layuot="raw")
    with pytest.raises(UsageError, match="acdc"):
        prepare("acdcs", phantom, tmp_path / "s")
    both = shutil.copytree(phantom, tmp_path / "both")
    (both / "patient001_frame01.h5").write_bytes(b"")
    with pytest.raises(UsageError, match="raw and h5"):
        prepare("acdc", both, tmp_path / "s")


def test_a_damaged_h5_volume_is_named(tmp_path: Path) -> None:
    (tmp_path / "patient001_frame01.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(InputError, match=r"patient001_frame01\.h5"):
        prepare("acdc", tmp_path, tmp_path / "s")


def test_a_full_disk_keeps_what_is_finished(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = np.save, []

    def full(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(SegweaveError, match="No space left") as caught:
            prepare("acdc", phantom, tmp_path / "s")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "s").exists()
    assert prepare("acdc", phantom, tmp_path / "s").resumed == 2
