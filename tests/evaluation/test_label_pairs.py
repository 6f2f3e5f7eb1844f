"""Which files of two folders belong together, and that none is passed over without a word."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segweave import score
from segweave.errors import InputError, UsageError
from segweave.evaluation import summary_table
from segweave.evaluation.label_pairs import Pairs, find_labels, pair
from segweave.formats.files import LABEL_ENDINGS


def write(folder: Path, *names: str, shift: int = 0) -> Path:
    mask = np.zeros((12, 16), np.uint8)
    mask[3:8, 4 + shift : 10 + shift] = 1
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / f"{name}.png")
    return folder


def paired(tmp: Path, ours: list[str], theirs: list[str], *named: str) -> Pairs:
    return pair(find_labels(write(tmp / "p", *ours)), find_labels(write(tmp / "r", *theirs)), named)


@pytest.mark.parametrize("ending", [*LABEL_ENDINGS, "_SEG", "_Mask"])
def test_one_name_with_an_ending_hides_no_other(tmp_path: Path, ending: str) -> None:
    names = ["p1", "p2", "p3", "p4", f"p5{ending}"]
    found = paired(tmp_path, names, names)
    assert set(found.predictions) == set(found.references) == {"p1", "p2", "p3", "p4", "p5"}
    assert found.passed_over == []


def test_the_wrong_masks_among_right_ones_are_scored(tmp_path: Path) -> None:
    names = ["p1", "p2", "p3", "p4"]
    ours = write(tmp_path / "p", *names, shift=6)
    write(ours, "p5_seg")
    evaluation = score(ours, write(tmp_path / "r", *names, "p5_seg"), tmp_path / "e")
    dice = [row.score.value for row in evaluation.rows if row.score.metric == "dice"]
    assert np.mean(dice) == pytest.approx(0.2)
    # A table may name the files as they are, with or without the ending.
    table = tmp_path / "t.csv"
    table.write_text("case,group\np1,a\np2,a\np3,b\np4,b\np5_seg,c\n")
    again = score(ours, tmp_path / "r", tmp_path / "f", cases=table)
    assert {row.case: row.group for row in again.rows}["p5"] == "c"
    table.write_text("case\np1\np2\np3\np4\np5_seg\np5\n")
    with pytest.raises(InputError, match="p5 comes twice"):
        score(ours, tmp_path / "r", tmp_path / "g", cases=table)


@given(
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_endings_every_case_is_found(cases: set[str], data: st.DataObject) -> None:
    endings = st.sampled_from(["", *LABEL_ENDINGS, "_GT"])
    names = [[c + data.draw(endings) for c in sorted(cases)] for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        found = paired(Path(folder), *names)
        assert set(found.predictions) == set(found.references) == cases
        assert found.passed_over == []
        for c in cases:
            for files in (found.predictions, found.references):
                assert files[c].name.startswith(c)


def test_images_beside_label_maps_are_named(tmp_path: Path) -> None:
    found = paired(tmp_path, ["a", "b"], ["a", "a_gt", "b", "b_gt", "c", "c_gt", "d"], "c")
    assert set(found.references) == {"a", "b", "c"}
    assert [file.name for file in found.passed_over] == ["a.png", "b.png", "c.png", "d.png"]
    evaluation = score(write(tmp_path / "p", "c"), tmp_path / "r", tmp_path / "e")
    note = "Passed over as images without a label map: a.png, b.png, c.png, d.png."
    assert note in summary_table([evaluation]).notes


def test_a_file_that_a_table_names_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "p", "a")
    write(tmp_path / "r", "a_gt", "d")
    table = tmp_path / "t.csv"
    table.write_text("case\na\nd\n")
    with pytest.raises(InputError, match="d: no prediction"):
        score(tmp_path / "p", tmp_path / "r", tmp_path / "e", cases=table)


def test_two_names_that_differ_in_the_ending_alone(tmp_path: Path) -> None:
    found = paired(tmp_path, ["x_label", "x_mask"], ["x_label", "x_mask"])
    assert set(found.predictions) == {"x_label", "x_mask"}
    with pytest.raises(InputError, match="several files for one case"):
        paired(tmp_path / "2", ["x_label", "x_mask"], ["x_gt", "y_gt"])


def test_names_are_compared_in_one_form(tmp_path: Path) -> None:
    name = "Mu\u0308ller_1"
    composed = unicodedata.normalize("NFC", name)
    found = paired(tmp_path, [name, "b"], [f"{composed}_gt", "b_gt"])
    assert set(found.predictions) == set(found.references) == {composed, "b"}


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder be one that may not be read; root may read every folder."""

    def forbidden(path: object) -> bool:
        return os.path.abspath(os.fspath(path)) == str(folder)  # type: ignore[call-overload]

    for module, name in ((os, "scandir"), (os, "listdir")):
        whole = getattr(module, name)

        def part(path: object = ".", whole: object = whole) -> object:
            if not isinstance(path, int) and forbidden(path):
                raise PermissionError(13, "Permission denied", str(path))
            return whole(path)  # type: ignore[operator]

        monkeypatch.setattr(module, name, part)
    iterdir = Path.iterdir

    def entries(self: Path) -> Iterator[Path]:
        if forbidden(self):
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", entries)


@pytest.mark.parametrize("side", ["p", "r"])
def test_a_sub_folder_that_may_not_be_read_is_refused(
    tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in "pr":
        write(tmp_path / folder, "one/a", "two/b")
    refuse(tmp_path / side / "two", monkeypatch)
    with pytest.raises(InputError, match="a folder that may be read") as caught:
        score(tmp_path / "p", tmp_path / "r", tmp_path / "e")
    assert "two" in str(caught.value)
    assert not (tmp_path / "e").exists()


# One threshold for both sides, and the checks of positions that go with it.


def grey(folder: Path, name: str, *, shift: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    values = np.zeros((24, 32), np.uint8)
    values[6:16, 8 + shift : 20 + shift] = 230
    values[0, 0] = 40
    Image.fromarray(values).save(folder / name, **({"quality": 70} if "jp" in name else {}))


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif"])
def test_a_threshold_holds_for_predictions_too(tmp_path: Path, kind: str) -> None:
    for k in range(2):
        grey(tmp_path / "p", f"a{k}.{kind}", shift=3)
        grey(tmp_path / "r", f"a{k}.png")
    with pytest.raises(InputError):
        score(tmp_path / "p", tmp_path / "r", tmp_path / "none")
    evaluation = score(tmp_path / "p", tmp_path / "r", tmp_path / "e", mask_threshold=127)
    dice = [row.score.value for row in evaluation.rows if row.score.metric == "dice"]
    assert dice == [pytest.approx(0.75)] * 2
    with pytest.raises(UsageError, match="one class, where a threshold"):
        score(
            tmp_path / "p", tmp_path / "r", tmp_path / "f", mask_threshold=127, classes=["a", "b"]
        )


AFFINE = np.diag([1.5, 1.5, 6.0, 1.0])


def volume(file: Path, affine: np.ndarray | None = AFFINE, scale: int = 255) -> None:
    file.parent.mkdir(exist_ok=True)
    values = np.zeros((14, 12, 5), np.uint8)
    values[3:9, 2:6, 1:4] = scale
    image = nib.Nifti1Image(values, affine)
    if affine is None:
        image.header.set_zooms((1.5, 1.5, 6.0))
    nib.save(image, file)


@pytest.mark.parametrize("threshold", [None, 127])
def test_a_threshold_leaves_no_check_out(tmp_path: Path, threshold: int | None) -> None:
    scale = 1 if threshold is None else 255
    volume(tmp_path / "r" / "a.nii.gz", scale=scale)
    moved = AFFINE.copy()
    moved[:3, 3] = 40, 0, 0
    volume(tmp_path / "p" / "a.nii.gz", moved, scale)
    folders = tmp_path / "p", tmp_path / "r"
    with pytest.raises(InputError, match="mm away from the image's"):
        score(*folders, tmp_path / "e", mask_threshold=threshold)
    # Turned by 180 degrees in the file, at the same positions in the patient.
    turned = AFFINE @ np.array([[-1, 0, 0, 13], [0, -1, 0, 11], [0, 0, 1, 0], [0, 0, 0, 1]])
    values = np.asarray(nib.load(tmp_path / "r" / "a.nii.gz").dataobj)[::-1, ::-1]
    nib.save(nib.Nifti1Image(values, turned), tmp_path / "p" / "a.nii.gz")
    found = score(*folders, tmp_path / "e", mask_threshold=threshold)
    assert {row.score.value for row in found.rows if row.score.metric == "dice"} == {1.0}


@pytest.mark.parametrize("bare", ["p", "r", "pr"])
def test_a_header_without_orientation_on_either_side(tmp_path: Path, bare: str) -> None:
    turned = np.diag([-1.5, -1.5, 6.0, 1.0])
    for side in "pr":
        volume(tmp_path / side / "a.nii.gz", None if side in bare else turned, 1)
    found = score(tmp_path / "p", tmp_path / "r", tmp_path / "e")
    assert {row.score.value for row in found.rows if row.score.metric == "dice"} == {1.0}


@pytest.mark.parametrize("axes", [np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
def test_a_lost_header_is_named_as_the_cause(tmp_path: Path, axes: np.ndarray) -> None:
    far = AFFINE.copy()
    far[:3, 3] = -90, 60, 15
    volume(tmp_path / "r" / "a.nii.gz", far, 1)
    volume(tmp_path / "p" / "a.nii.gz", axes, 1)
    with pytest.raises(InputError, match="mm away from the image's") as caught:
        score(tmp_path / "p", tmp_path / "r", tmp_path / "e")
    assert "save it again with the image's header" in str(caught.value)
    assert "resample" not in str(caught.value)


# Names of classes.


def three(folder: Path, highest: int = 3) -> Path:
    folder.mkdir()
    labels = np.zeros((12, 16), np.uint8)
    for id in range(1, highest + 1):
        labels[3 * id - 2 : 3 * id, 2:9] = id
    Image.fromarray(labels).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("first", [[], ["background"], ["Background"]])
def test_background_before_the_names_changes_nothing(tmp_path: Path, first: list[str]) -> None:
    folder = three(tmp_path / "a")
    found = score(folder, folder, tmp_path / "e", classes=[*first, "RV", "myo", "LV"])
    assert found.manifest.classes == ["RV", "myo", "LV"]


def test_more_names_than_ids_are_refused_unless_the_background_is_named(tmp_path: Path) -> None:
    folder = three(tmp_path / "a", 2)
    with pytest.raises(InputError, match="ids up to 2") as caught:
        score(folder, folder, tmp_path / "e", classes=["skin", "lesion", "hair"])
    assert "call it background" in str(caught.value)
    assert "background,skin,lesion,hair" in str(caught.value)
    assert not (tmp_path / "e").exists()
    found = score(folder, folder, tmp_path / "e", classes=["background", "a", "b", "c"])
    assert found.manifest.classes == ["a", "b", "c"]


@pytest.mark.parametrize("names", [["background"], ["a", "a"], ["a", ""]])
def test_names_that_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    folder = three(tmp_path / "a")
    with pytest.raises(UsageError, match="each named once"):
        score(folder, folder, tmp_path / "e", classes=names)


# Groups by a pattern.


def test_groups_are_found_in_the_names(tmp_path: Path) -> None:
    names = ["p1_left", "p1_right", "p2_left"]
    folder = write(tmp_path / "p", *names)
    found = score(folder, folder, tmp_path / "e", group="^(p[0-9]+)_")
    assert found.manifest.grouped
    assert {row.group for row in found.rows} == {"p1", "p2"}
    with pytest.raises(UsageError, match="finds a group"):
        score(folder, folder, tmp_path / "f", group="^(q[0-9]+)_")
    with pytest.raises(UsageError, match="regular expression"):
        score(folder, folder, tmp_path / "f", group="(")
    table = tmp_path / "t.csv"
    table.write_text("case,group\np1_left,anna\np1_right,\np2_left,\n")
    mixed = score(folder, folder, tmp_path / "f", group="^(p[0-9]+)_", cases=table)
    assert {row.case: row.group for row in mixed.rows} == {
        "p1_left": "anna",
        "p1_right": "p1",
        "p2_left": "p2",
    }
