"""Folders of any label maps against folders of references."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segweave.cli import main
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
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


def test_parts_without_a_file_are_not_asked_for(
    volumes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    table = tmp_path / "cases.csv"
    rows = [f"p{k},scan {k},g{k % 2},{'test' if k < 3 else 'train'}" for k in range(6)]
    table.write_text("\n".join(["case,id,group,part", *rows]))
    evaluation = evaluate_folders(*volumes, cases_csv=table)
    assert {(r.case, r.group) for r in evaluation.rows} == {
        ("scan 0", "g0"),
        ("scan 1", "g1"),
        ("scan 2", "g0"),
    }
    assert evaluation.manifest.grouped


def test_a_file_per_frame_is_scored_as_the_video_in_one_file(tmp_path: Path) -> None:
    truth, found = label(0), np.roll(label(0), 1, axis=2)
    rows = ["case,id,slice,group"]
    for folder, labels in (("p", found), ("r", truth)):
        save(tmp_path / "whole" / folder / "video.npz", labels)
        for k in range(3):
            save(tmp_path / "frames" / folder / f"v_frame{k}.png", labels[k : k + 1])
    table = tmp_path / "cases.csv"
    table.write_text("\n".join([*rows, *(f"v_frame{k},video,{k},anna" for k in range(3))]))
    whole, frames = (
        evaluate_folders(
            tmp_path / kind / "p", tmp_path / kind / "r", tmp_path / f"{kind}-scores", **options
        )
        for kind, options in (("whole", {"stack": "time"}), ("frames", {"cases_csv": table}))
    )
    assert [(r.case, r.score) for r in frames.rows] == [(r.case, r.score) for r in whole.rows]
    assert {r.group for r in frames.rows} == {"anna"}
    assert frames.manifest.references == whole.manifest.references
    table.write_text("case,id,slice\nv_frame0,video,1\nv_frame1,video,1\nv_frame2,video,2\n")
    folders = tmp_path / "frames" / "p", tmp_path / "frames" / "r", tmp_path / "again"
    with pytest.raises(InputError, match="the same part of video"):
        evaluate_folders(*folders, cases_csv=table)


def test_the_references_leave_a_checksum(volumes: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first = evaluate_folders(*volumes).manifest.references
    assert set(first) == {"p0", "p1", "p2"}
    save(volumes[1] / "patient1" / "p1_gt.nii.gz", np.roll(label(1), 1, axis=1))
    again = evaluate_folders(*volumes, force=True).manifest.references
    assert [name for name in first if first[name] != again[name]] == ["p1"]


def test_a_table_may_name_the_files(volumes: tuple[Path, Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("case,group\np0_gt.nii.gz,a\np1.nii.gz,b\np2,b\n")
    assert {row.case for row in evaluate_folders(*volumes, cases_csv=table).rows} == {
        "p0",
        "p1",
        "p2",
    }
    for text, words in (
        ("case,split\np0,a\n", "call that column part"),
        ("case,patient\np0,a\n", "call that column group"),
        ("case,grup\np0,a\n", "did you mean group"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=words):
            evaluate_folders(*volumes, cases_csv=table, force=True)


def test_grey_masks_are_no_hundred_classes(tmp_path: Path) -> None:
    truth = np.where(label(0)[:1] == 1, 255, 0).astype(np.uint8)
    save(tmp_path / "p" / "a.png", np.roll(truth, 1, axis=2))
    (tmp_path / "r").mkdir()
    Image.fromarray(truth[0]).save(tmp_path / "r" / "a.jpg", quality=60)
    folders = tmp_path / "p", tmp_path / "r", tmp_path / "out"
    for folder in ("p", "r"):
        save(tmp_path / folder / "z.png", label(0)[:1])
    with pytest.raises(InputError, match=r"a\.jpg[^$]*values up to[^$]*--mask-threshold 127"):
        evaluate_folders(*folders)
    for folder in ("p", "r"):
        (tmp_path / folder / "z.png").unlink()
    assert not folders[2].exists()
    grey = evaluate_folders(*folders, mask_threshold=127)
    assert grey.manifest.classes == ["foreground"]
    save(tmp_path / "r" / "a.png", truth)
    (tmp_path / "r" / "a.jpg").unlink()
    exact = evaluate_folders(folders[0], folders[1], tmp_path / "exact")
    assert [row.score for row in grey.rows] == [row.score for row in exact.rows]


def test_problems_of_files_keep_their_remedy(tmp_path: Path) -> None:
    for folder in ("p", "r"):
        (tmp_path / folder).mkdir()
        for k in range(2):
            image = nib.Nifti1Image(label(k).transpose(2, 1, 0), np.eye(4))
            image.header["pixdim"][1:4] = 1.5, 1.5, 8
            nib.save(image, tmp_path / folder / f"p{k}.nii.gz")
    with pytest.raises(InputError) as raised:
        evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert str(raised.value).count("--geometry pixdim") == 1
    evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out", geometry="pixdim")


def test_sources_are_found_from_anywhere(
    volumes: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in volumes]
    found = evaluate_folders(*names)
    assert found.manifest.sources["predictions"] == str(volumes[0])
    assert found.manifest.sources["references"] == str(volumes[1])


def test_a_table_without_groups_does_not_count_as_one(
    volumes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("case,group,stack\np0,,time\np1,,time\np2,,time\n")
    evaluation = evaluate_folders(*volumes, cases_csv=table)
    assert {r.group for r in evaluation.rows} == {"p0", "p1", "p2"}
    assert not evaluation.manifest.grouped


def test_what_slices_are_can_be_said_for_all_files(tmp_path: Path) -> None:
    for k in range(2):
        for name in ("p", "r"):
            save(tmp_path / name / f"video{k}.npz", label(k))
    folders = tmp_path / "p", tmp_path / "r"
    as_volumes = evaluate_folders(*folders, tmp_path / "space")
    assert "2 cases, 2 groups; scored: 2 volumes in 3D." in summary_table([as_volumes]).notes
    as_videos = evaluate_folders(*folders, tmp_path / "time", stack="time")
    assert {row.score.slice for row in as_videos.rows} == {0, 1, 2}
    assert "2 cases, 2 groups; scored: 6 frames." in summary_table([as_videos]).notes
    # The table goes before the option.
    table = tmp_path / "cases.csv"
    table.write_text("case,stack\nvideo0,space\nvideo1,\n")
    mixed = evaluate_folders(*folders, tmp_path / "mixed", stack="time", cases_csv=table)
    notes = summary_table([mixed]).notes
    assert "2 cases, 2 groups; scored: 1 volume in 3D, 3 frames." in notes
    with pytest.raises(InputError, match="one slice in a single image"):
        evaluate_folders(*folders, tmp_path / "single", stack="single")
    with pytest.raises(UsageError, match="space"):
        evaluate_folders(*folders, tmp_path / "unknown", stack="spac")  # type: ignore[arg-type]


def test_the_command_says_what_slices_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("p", "r"):
        save(tmp_path / name / "video.npz", label(0))
    folders = [str(tmp_path / name) for name in ("p", "r")]
    for words, code in ((["time"], 0), (["tim"], 2)):
        with pytest.raises(SystemExit) as left:
            main(["score", *folders, "--out", str(tmp_path / words[0]), "-q", "--stack", *words])
        assert left.value.code == code
    seen = capsys.readouterr()
    assert "1 case, 1 group; scored: 3 frames." in seen.out
    assert "time" in seen.err


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
    assert "3 cases, 3 groups; scored: 3 images." in summary_table([evaluation]).notes
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
        ("", "a file with content"),
        ("name\np0\n", "case"),
        ("case,grup\np0,x\n", "group"),
        ("case,stack\np0,flat\n", "flat"),
        ("case,seed\np0,one\n", "whole number"),
        ("case\np0\np0\n", "twice"),
        ("case\n", "no rows"),
        ("case\np0\n", "without a row"),
        ("case\np0\np1\np2\np9\n", "p9: no reference"),
        ("case,part\np0,test\np1,test\np2,test\np9,test\n", "p9: no reference"),
        ("case,part\np7,train\np8,test\n", "p8: no reference"),
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
