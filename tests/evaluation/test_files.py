"""Folders of any label maps against folders of references."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.evaluation import evaluate_folders, read_evaluation, summary_table


def save(path: Path, labels: np.ndarray) -> None:
    """(slices, height, width) to a file of any kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".nii.gz"):
        affine = np.diag([-1.5, -1.5, 8.0, 1.0])
        nib.save(nib.Nifti1Image(labels.transpose(2, 1, 0), affine), path)
    elif path.suffix == ".npz":
        np.savez(path, label=labels)
    else:
        Image.fromarray(labels[0]).save(path)


def label(k: int, slices: int = 3) -> np.ndarray:
    out = np.zeros((slices, 16, 20), np.uint8)
    out[:, 3 : 9 + k, 4:9] = 1
    out[:, 12:14, 12:15] = 2
    return out


@pytest.fixture
def volumes(tmp_path: Path) -> tuple[Path, Path, Path]:
    for k in range(3):
        save(tmp_path / "references" / f"patient{k}" / f"p{k}_gt.nii.gz", label(k))
        save(tmp_path / "references" / f"patient{k}" / f"p{k}.nii.gz", label(k) * 50)
        save(tmp_path / "predictions" / f"p{k}.nii.gz", np.roll(label(k), 1, axis=2))
    return tmp_path / "predictions", tmp_path / "references", tmp_path / "out"


def test_volumes(volumes: tuple[Path, Path, Path]) -> None:
    done: list[tuple[int, int, str]] = []
    evaluation = evaluate_folders(
        *volumes, arm="theirs", progress=lambda *state: done.append(state)
    )
    assert done == [(1, 3, "p0"), (2, 3, "p1"), (3, 3, "p2")]
    assert read_evaluation(volumes[2]) == evaluation
    hd = [r.score for r in evaluation.rows if r.score.metric == "hd" and r.case == "p0"]
    assert [(s.class_name, s.value, s.unit) for s in hd] == [
        ("class 1", pytest.approx(1.5), "mm"),
        ("class 2", pytest.approx(1.5), "mm"),
    ]
    assert not evaluation.manifest.grouped
    assert "No groups were given" in summary_table([evaluation]).markdown()


def test_a_table_of_cases_gives_groups_and_arms(
    volumes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("case,group,arm,seed\np0,anna,a,1\np1,anna,a,1\np2,ben,b,2\n")
    evaluation = evaluate_folders(*volumes, cases_csv=table)
    assert {(r.case, r.group, r.arm, r.seed) for r in evaluation.rows} == {
        ("p0", "anna", "a", 1),
        ("p1", "anna", "a", 1),
        ("p2", "ben", "b", 2),
    }
    assert evaluation.manifest.grouped
    assert evaluation.manifest.groups == 2


@pytest.mark.parametrize("suffix", [".png", ".npz"])
def test_images(tmp_path: Path, suffix: str) -> None:
    for k in range(3):
        mask = (label(k, 1) == 1).astype(np.uint8)
        save(tmp_path / "r" / f"ISIC_{k}_Segmentation.png", mask * 255)
        save(tmp_path / "p" / f"ISIC_{k}{suffix}", mask)
    evaluation = evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "e")
    assert evaluation.manifest.kind == "binary"
    dice = [(r.score.slice, r.score.value) for r in evaluation.rows if r.score.metric == "dice"]
    assert dice == [(0, 1.0)] * 3
    assert evaluation.manifest.units["hd95"] == ["px"]


def test_everything_that_does_not_match_is_listed(volumes: tuple[Path, Path, Path]) -> None:
    predictions, _, out = volumes
    (predictions / "p1.nii.gz").rename(predictions / "q1.nii.gz")
    (predictions / "p2.nii.gz").unlink()
    with pytest.raises(InputError, match="3 problems") as caught:
        evaluate_folders(*volumes)
    for words in ("p1: no prediction", "p2: no prediction", "q1: a prediction without"):
        assert words in str(caught.value)
    assert not out.exists()


def test_everything_that_does_not_fit_is_listed(volumes: tuple[Path, Path, Path]) -> None:
    predictions, _, out = volumes
    save(predictions / "p0.nii.gz", label(0)[:2])
    save(predictions / "p1.nii.gz", label(1) * 3)
    (predictions / "p2.nii.gz").write_bytes(b"not a file at all")
    with pytest.raises(InputError, match="3 problems") as caught:
        evaluate_folders(*volumes)
    text = str(caught.value)
    assert "p0.nii.gz" in text
    assert "p1.nii.gz" in text
    assert "p2.nii.gz" in text
    assert "unknown class ids" in text
    assert not out.exists()


def test_bad_folders(volumes: tuple[Path, Path, Path], tmp_path: Path) -> None:
    predictions, references, out = volumes
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such folder"):
        evaluate_folders(tmp_path / "nowhere", references, out)
    with pytest.raises(InputError, match="files ending in"):
        evaluate_folders(predictions, tmp_path / "empty", out)
    save(predictions / "again" / "p0.nii.gz", label(0))
    with pytest.raises(InputError, match="several files for one case"):
        evaluate_folders(predictions, references, out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column case"),
        ("case,grup\np0,x\n", "group"),
        ("case,stack\np0,flat\n", "flat"),
        ("case,seed\np0,one\n", "whole number"),
        ("case\np0\np0\n", "twice"),
        ("case\n", "no rows"),
        ("case\np0\n", "without a row"),
        ("case\np0\np1\np2\np9\n", "p9: no reference"),
    ],
)
def test_bad_tables_of_cases(
    volumes: tuple[Path, Path, Path], tmp_path: Path, text: str, words: str
) -> None:
    table = tmp_path / "cases.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=words):
        evaluate_folders(*volumes, cases_csv=table)


def test_named_classes_decide_what_is_known(volumes: tuple[Path, Path, Path]) -> None:
    target = TargetSpec(names=("background", "one"))
    with pytest.raises(InputError, match="unknown class ids in the prediction"):
        evaluate_folders(*volumes, target=target)


@pytest.mark.real
def test_real_volumes_are_measured_in_the_header_s_pixdim(real_data: Path, tmp_path: Path) -> None:
    references = real_data / "acdc" / "nifti" / "training"
    if not references.is_dir():
        pytest.skip(f"no raw ACDC volumes in {references}")
    for file in references.rglob("*_gt.nii.gz"):
        image = nib.load(file)
        moved = np.roll(np.asarray(image.dataobj).astype(np.uint8), 1, axis=0)
        nib.save(nib.Nifti1Image(moved, None, image.header), tmp_path / file.name)
    with pytest.raises(InputError, match="pixdim"):
        evaluate_folders(tmp_path, references, tmp_path.with_name("none"))
    evaluation = evaluate_folders(
        tmp_path, references, tmp_path.with_name("scores"), geometry="pixdim"
    )
    assert evaluation.manifest.cases == 6
    step = {r.case: r.score.value for r in evaluation.rows if r.score.metric == "hd"}
    assert all(value is not None and 1.2 < value < 2 for value in step.values())
