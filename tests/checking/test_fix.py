from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segweave.checking import check, fix
from segweave.cli import main
from tests.datasets.broken import rewrite
from tests.datasets.volumes import pairs_of, write

LABEL = np.zeros((8, 7, 4), np.uint8)
LABEL[2:6, 2:5, 1:3] = 1
AWAY = np.array([[-1.0, 0, 0, 3], [0, -1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])


def _table(folder: Path, *masks: str) -> Path:
    """A table in lists/, whose labels lie 3 mm away from their images."""
    rows = []
    for k, mask in enumerate(masks):
        write(
            folder / "images" / f"{k}.nii.gz",
            (np.arange(LABEL.size).reshape(LABEL.shape) + k).astype(np.int16),
        )
        write(folder / "lists" / mask, LABEL, AWAY)
        rows.append(f"../images/{k}.nii.gz,{mask},c{k}")
    table = folder / "lists" / "t.csv"
    table.write_text("\n".join(["image,mask,case", *rows]) + "\n", encoding="utf-8")
    return table


def test_labels_outside_the_source_are_never_changed(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    table = _table(tmp_path, "../masks/a.nii.gz", "linked/a.nii.gz", "own/a.nii.gz")
    (tmp_path / "lists" / "linked").rename(tmp_path / "elsewhere")
    (tmp_path / "lists" / "linked").symlink_to(tmp_path / "elsewhere")
    labels = [tmp_path / "masks" / "a.nii.gz", tmp_path / "elsewhere" / "a.nii.gz"]
    before = [path.read_bytes() for path in labels]
    lines = fix(table, check(table).problems, "copy-header")
    assert sorted(line["done"] for line in lines) == [False, False, True]
    assert all("outside" in line["why"] for line in lines if not line["done"])
    assert [path.read_bytes() for path in labels] == before
    (kept,) = [Path(line["kept"]) for line in lines if line["done"]]
    assert kept == tmp_path / "lists" / ".before-fix" / "own" / "a.nii.gz"


def test_labels_in_a_folder_that_is_named_are_fixed(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    table = _table(tmp_path, "../masks/a.nii.gz", "../other/a.nii.gz", "own/a.nii.gz")
    named = [tmp_path / "masks", tmp_path / "other"]
    stranger = tmp_path / "lists" / "masks" / "a.nii.gz"
    write(stranger, LABEL * 0)
    before = stranger.read_bytes()
    lines = fix(table, check(table).problems, "copy-header", folders=named)
    assert [line["done"] for line in lines] == [True] * 3
    assert stranger.read_bytes() == before
    kept = {Path(line["kept"]) for line in lines}
    assert len(kept) == 3
    for path in kept:
        assert path.parent.is_relative_to(tmp_path / "lists" / ".before-fix")
        np.testing.assert_array_equal(nibabel.load(path).affine, AWAY)
    assert not [p for p in check(table).problems if p.kind == "geometry"]


def test_the_command_says_where_the_log_of_a_table_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = _table(tmp_path, "a.nii.gz")
    with pytest.raises(SystemExit):
        main(["check", str(table), "-q", "--fix", "copy-header"])
    out = capsys.readouterr().out
    log = next(line for line in out.splitlines() if line.startswith("log:")).split()[-1]
    assert Path(log) == tmp_path / "lists" / "check-fixes.jsonl"
    assert Path(log).is_file()
    assert not [p for p in check(table).problems if p.file == Path(log)]


@pytest.mark.parametrize("fault", ["no orientation", "a metre away", "a flipped sign"])
def test_resampling_never_erases_a_label(raw: Path, fault: str) -> None:
    _, label = pairs_of(raw)[0]
    affine = nibabel.load(label).affine.copy()
    if fault == "no orientation":
        rewrite(label, lambda v: v[2:], sform_code=0, qform_code=0)
    else:
        if fault == "a metre away":
            affine[0, 3] += 1000
        else:
            affine[0, :3] *= -1
        rewrite(label, affine=affine)
    before = label.read_bytes()
    (line,) = fix(raw, check(raw).problems, "resample")
    assert not line["done"]
    assert ("has no orientation" if fault == "no orientation" else "erase") in line["why"]
    assert label.read_bytes() == before
    assert not (raw / ".before-fix" / "label" / label.name).exists()


@pytest.mark.parametrize("full", [False, True])
def test_labels_on_another_disk(raw: Path, monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    _, label = pairs_of(raw)[0]
    moved = nibabel.load(label).affine.copy()
    moved[2, 3] += 30
    rewrite(label, affine=moved)
    before, replace = label.read_bytes(), os.replace

    def on_disks(old: Any, new: Any) -> None:
        if Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(old))
        if full and Path(new) == label:
            raise OSError(errno.EIO, "Input/output error", str(old))
        replace(old, new)

    problems = check(raw).problems
    monkeypatch.setattr(os, "replace", on_disks)
    (line,) = fix(raw, problems, "copy-header")
    kept = raw / ".before-fix" / "label" / label.name
    assert line["done"] != full
    assert kept.exists() != full
    assert (label if full else kept).read_bytes() == before
    assert not [path for path in label.parent.iterdir() if path.name.startswith(".")]
    assert not full or "Input/output error" in line["why"]
