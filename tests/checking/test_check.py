from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from segweave.checking import CheckReport, Problem, check, fix
from segweave.checking.report import REMEDIES
from segweave.cli import main
from segweave.datasets import prepare
from segweave.errors import InputError, UsageError
from segweave.phantoms.abdomen import write_abdomen
from segweave.phantoms.blobs import write_blobs
from segweave.phantoms.cardiac import write_cardiac
from segweave.phantoms.polyp import write_polyps
from tests.datasets.broken import rewrite, seven, turned
from tests.datasets.volumes import pairs_of


def test_a_whole_data_set_has_nothing_but_notes(abdomens: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    report = check(abdomens, progress=lambda *a: seen.append(a))
    assert (report.name, report.layout, report.cases, report.failed) == ("synapse", "raw", 9, 0)
    assert seen[-1] == (9, 9, "")
    assert {p.kind for p in report.errors} == {"missing"}
    assert "21 cases are not there" in report.errors[0].found
    facts = {fact.what: fact for fact in report.facts}
    assert (facts["cases"].found, facts["cases"].expected) == ("9", "30")
    assert facts["rows and columns"].found == "40 × 40"
    assert facts["rows and columns"].expected == "512"
    assert facts["mm between slices"].expected == "2.5 to 5"
    assert facts["slices are"].found == "axial"
    assert "5 liver (9)" in facts["labels (in cases)"].found
    assert not any(abdomens.rglob("*.jsonl")), "nothing is written"


def test_layouts_that_several_share(tmp_path: Path) -> None:
    folder = write_polyps(tmp_path / "some", 2, 3, layout="kvasir-seg", size=(24, 32))
    for place in ("images", "masks"):
        for number, path in enumerate(sorted((folder / place).iterdir()), 1):
            path.rename(path.with_name(f"{number}.jpg"))
    with pytest.raises(UsageError, match=r"--as .*kvasir-seg"):
        check(folder)
    assert check(folder.rename(tmp_path / "Kvasir-SEG")).name == "kvasir-seg"


@pytest.mark.parametrize("white", [1, 255])
def test_a_stray_value_does_not_pass_for_a_class(tmp_path: Path, white: int) -> None:
    folder = write_blobs(tmp_path / "photos", images=6, size=(24, 32))
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255 * np.uint8(white)).save(path)
    mask = sorted((folder / "masks").iterdir())[2]
    values = np.asarray(Image.open(mask)) // white
    values[0, 0] = 7
    Image.fromarray(values).save(mask)
    report = check(folder)
    problem = next(p for p in report.errors if p.kind == "labels")
    assert problem.file == mask
    assert re.search(r"7 in (only )?1 of 6", problem.found)


def test_two_faults_of_one_case_are_both_listed(raw: Path) -> None:
    image, label = pairs_of(raw)[0]
    rewrite(image, lambda v: np.where(v == v.max(), np.nan, v).astype(np.float32))
    rewrite(label, affine=turned(label))
    image, label = pairs_of(raw)[1]
    rewrite(label, seven, affine=turned(label))
    problems = check(raw).problems
    assert {p.kind for p in problems if p.case == "case0001"} >= {"values", "geometry"}
    assert {p.kind for p in problems if p.case == "case0002"} >= {"labels", "geometry"}
    strange = next(p for p in problems if p.case == "case0002" and p.kind == "labels")
    assert (strange.found, strange.file) == ("ids [77]", label)


def test_headers_that_contradict_themselves(raw: Path) -> None:
    image, _ = pairs_of(raw)[0]
    rewrite(image, pixdim=(1, 9, 9, 9, 0, 0, 0, 0))
    report = check(raw)
    assert [p.file for p in report.problems if p.kind == "header"] == [image]


def test_a_header_that_contradicts_itself_says_nothing_against_the_label(
    raw: Path, tmp_path: Path
) -> None:
    image, _ = pairs_of(raw)[0]
    rewrite(image, pixdim=(1, 9, 9, 9, 0, 0, 0, 0))
    assert not [p for p in check(raw).problems if p.kind == "geometry"]
    # What is to be done about it can be done.
    for k, place in enumerate(("img", "label")):
        (tmp_path / place).mkdir()
        for pair in pairs_of(raw)[:2]:
            shutil.copy(pair[k], tmp_path / place / pair[0].name)
    both = {"name": "folder", "source": tmp_path / "img", "masks": tmp_path / "label"}
    for options in ({"name": "synapse", "source": raw}, both):
        with pytest.raises(InputError, match="one voxel size"):
            prepare(out=tmp_path / "s", **options)
        report = check(**options, geometry="affine")
        assert {p.kind for p in report.errors} <= {"missing"}
        prepare(out=tmp_path / f"s {options['name']}", **options, geometry="affine")


def test_the_twin_of_an_image_beside_its_mask_is_the_image(tmp_path: Path) -> None:
    folder = write_cardiac(tmp_path / "training", patients=2, size=(36, 32), slices=3)
    image = min(p for p in folder.rglob("*frame*.nii.gz") if "_gt" not in p.name)
    for file in (image, image.with_name(image.name.replace(".nii", "_gt.nii"))):
        twin = file.with_name(file.name.removesuffix(".gz"))
        twin.write_bytes(gzip.decompress(file.read_bytes()))
        (problem,) = [p for p in check(folder).errors if p.file == twin]
        assert problem.found.startswith(f"a second file of {file.name},")


def test_known_contradictions_are_one_note(tmp_path: Path) -> None:
    folder = write_cardiac(tmp_path / "training", patients=2, size=(36, 32), slices=3)
    report = check(folder)
    assert not [p for p in report.problems if p.kind == "header"]
    notes = [p for p in report.problems if p.kind == "note"]
    assert sum("pixdim" in p.found for p in notes) == 1


def test_one_case_that_is_stacked_another_way_is_unusual(raw: Path) -> None:
    for path in pairs_of(raw)[0]:
        affine = nibabel.load(path).affine[[2, 1, 0, 3]]
        rewrite(path, affine=affine)
    unusual = [p for p in check(raw).problems if p.kind == "unusual"]
    assert [(p.case, p.found) for p in unusual] == [
        ("case0001", "direction of the slices: sagittal")
    ]


def test_files_larger_than_memory_allows_are_refused(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGWEAVE_LARGEST_GIB", "0.000001")
    report = check(raw)
    assert report.cases == 0
    assert report.failed == 9
    assert all(
        "declares" in p.found for p in report.problems if p.kind in ("damaged", "unsupported")
    )


def test_bare_images_and_what_can_not_be_checked(abdomens: Path, tmp_path: Path) -> None:
    report = check(abdomens / "img")
    assert (report.name, report.cases) == ("images", 9)
    assert not report.errors
    with pytest.raises(InputError, match="nothing"):
        check(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least one image"):
        check(tmp_path / "empty")
    with pytest.raises(UsageError, match="synapse"):
        check(abdomens, "synapze")
    with pytest.raises(InputError, match="ACDC"):
        check(abdomens, "acdc")


@pytest.mark.parametrize("how", ["copy-header", "resample"])
def test_labels_elsewhere_are_fixed(raw: Path, how: Any) -> None:
    image, label = pairs_of(raw)[0]
    values = np.asarray(nibabel.load(label).dataobj)
    affine = nibabel.load(label).affine
    moved = affine.copy()
    if how == "copy-header":
        moved = turned(label)
        rewrite(label, affine=moved)
    else:
        # Cropped by two columns at the near side: the header says so, the shape differs.
        moved[:3, 3] += moved[:3, 0] * 2
        rewrite(label, lambda v: v[2:], affine=moved)
    before = label.read_bytes()
    report = check(raw)
    problem = next(p for p in report.problems if p.file == label)
    assert (problem.kind, problem.image) == (
        "geometry" if how == "copy-header" else "size",
        image,
    )
    lines = fix(raw, report.problems, how)
    assert [line["done"] for line in lines] == [True]
    assert (raw / ".before-fix" / "label" / label.name).read_bytes() == before
    log = (raw / "check-fixes.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(log[0]) == lines[0]
    fixed = nibabel.load(label)
    np.testing.assert_allclose(fixed.affine, affine, atol=1e-4)
    expected = (
        values if how == "copy-header" else np.where(np.arange(40)[:, None, None] < 2, 0, values)
    )
    np.testing.assert_array_equal(np.asarray(fixed.dataobj), expected)
    assert not [p for p in check(raw).problems if p.file == label]


def test_what_can_not_be_fixed_gives_the_reason(raw: Path) -> None:
    _, label = pairs_of(raw)[0]
    rewrite(label, lambda v: v[:-1])
    before = label.read_bytes()
    lines = fix(raw, check(raw).problems, "copy-header")
    assert [line["done"] for line in lines] == [False]
    assert "another shape" in lines[0]["why"]
    assert label.read_bytes() == before
    with pytest.raises(UsageError, match="resample"):
        fix(raw, [], "resampel")  # type: ignore[arg-type]


def test_problems_are_grouped_the_gravest_first() -> None:
    report = CheckReport(Path("x"), "n", "l")
    report.problems = [
        Problem("unused", "warning", "a"),
        Problem("size", "error", "b"),
        Problem("labels", "error", "c"),
        Problem("labels", "error", "d"),
        Problem("note", "note", "e"),
    ]
    assert [(kind, len(found)) for kind, _, found in report.kinds()] == [
        ("labels", 2), ("size", 1), ("unused", 1), ("note", 1),
    ]  # fmt: skip
    assert all(REMEDIES.values())


def test_the_command(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, label = pairs_of(raw)[0]
    rewrite(label, affine=turned(label))
    for arguments, code in ((["-q"], 0), (["-q", "--strict"], 2), (["--json"], 0)):
        with pytest.raises(SystemExit) as left:
            main(["check", str(raw), *arguments])
        assert left.value.code == code
        out = capsys.readouterr().out
        assert "geometry" in out
        assert label.name in out
    content = json.loads(out)
    assert (content["format"], content["ok"], content["cases"]) == (1, False, 8)
    with pytest.raises(SystemExit) as left:
        main(["check", str(raw), "-q", "--fix", "copy-header", "--as", "synapse"])
    assert left.value.code == 0
    assert "1 labels" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["check", str(raw), "--fix", "copy-heder"])
    assert left.value.code == 2


def test_options_are_taken_as_prepare_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_blobs(tmp_path / "photos", images=6, size=(24, 32))
    given = ["classes=lesion", "fractions=0.5,0.25,0.25", "mask-threshold=127", "group=none"]
    words = [word for pair in given for word in ("--option", pair)]
    with pytest.raises(SystemExit):
        main(["check", str(folder), "--as", "folder", "--json", *words])
    content = json.loads(capsys.readouterr().out)
    assert content["ok"]
    facts = {fact["what"]: fact for fact in content["facts"]}
    assert facts["labels (in cases)"]["expected"] == "1 lesion"
    for wrong, said in (("fractions=0.6;0.2", "commas"), ("seed=x", "seed=N"), ("group", "KEY")):
        with pytest.raises(SystemExit) as left:
            main(["check", str(folder), "--as", "folder", "-q", "--option", wrong])
        assert left.value.code == 2
        assert said in capsys.readouterr().err


def test_a_virtual_h5_is_refused(tmp_path: Path) -> None:
    folder = write_abdomen(tmp_path, cases=2, size=32, slices=3, layout="transunet")
    volume = next((folder / "test_vol_h5").iterdir())
    with h5py.File(volume, "a") as file:
        del file["image"]
        file["image"] = h5py.ExternalLink("/etc/passwd", "image")
    assert any(p.file == volume for p in check(folder).errors)


@pytest.mark.real
@pytest.mark.parametrize(
    ("place", "name", "cases"),
    [
        ("acdc/nifti", "acdc", 6),
        ("acdc/npz_layout", "acdc", 6),
        ("cvc-clinicdb", "cvc-clinicdb", 29),
        ("ph2", "ph2", 20),
    ],
)
def test_real_data_holds_nothing_wrong_but_gaps(
    real_data: Path, place: str, name: str, cases: int
) -> None:
    report = check(real_data / place)
    assert (report.name, report.cases, report.failed) == (name, cases, 0)
    assert {p.kind for p in report.problems} <= {"missing", "note"}, report.problems


@pytest.mark.real
def test_acdc_holds_one_patient_under_two_names(real_data: Path) -> None:
    report = check(real_data / "acdc" / "ACDC_training_volumes")
    assert (report.cases, report.failed) == (200, 0)
    doubled = [(p.case, p.found) for p in report.errors]
    assert doubled == [
        ("patient076_ED", "the pixels of patient074_ED"),
        ("patient076_ES", "the pixels of patient074_ES"),
    ]


@pytest.mark.real
def test_real_data_is_recognised(real_data: Path) -> None:
    report = check(real_data / "synapse-layout")
    assert (report.name, report.layout, report.cases) == ("synapse", "transunet", 1)
    assert {p.kind for p in report.errors} == {"missing"}
    assert any("leak" in p.found for p in report.problems)


def test_slices_one_pixel_wide_are_unusual(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.arange(12 if name == "a" else 16).reshape(-1, 4, 1))
    unusual = [p for p in check(tmp_path).problems if p.kind == "unusual"]
    assert [(p.case, p.found) for p in unusual] == [(n, "slices of 4 × 1 pixels") for n in "ab"]
