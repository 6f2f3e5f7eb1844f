from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from segweave.cli import main
from segweave.cli.export_nnunet import export_nnunet
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.datasets import prepare
from segweave.datasets.export_nnunet import in_no_part, write_nnunet
from segweave.datasets.synapse import CARD
from segweave.errors import InputError, UsageError
from segweave.evaluation import read_evaluation
from tests.data.made import TARGET, made_case
from tests.datasets.volumes import write


def test_a_store_goes_to_nnunet_and_back(synapse: Store, tmp_path: Path) -> None:
    folder = write_nnunet(synapse, tmp_path, number=7, split="18-12", channels=["CT"])
    assert folder.name == "Dataset007_synapse"
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert about["channel_names"] == {"0": "CT"}
    assert about["labels"] == {name: i for i, name in enumerate(CARD.classes)}
    assert (about["numTraining"], about["file_ending"]) == (5, ".nii.gz")
    assert (
        len(list((folder / "imagesTs").iterdir()))
        == len(list((folder / "labelsTs").iterdir()))
        == 4
    )
    report = prepare("nnunet", tmp_path, tmp_path / "s")
    assert (report.cases, report.missing) == (9, [])
    back = Store(tmp_path / "s")
    assert back.target.names == synapse.target.names
    assert set(back.splits["seed-0"]["test"]) == set(synapse.splits["18-12"]["test"])
    for id in synapse.ids:
        ours, theirs = back.case(id), synapse.case(id)
        np.testing.assert_array_equal(ours.image, theirs.image)
        assert ours.image.dtype == theirs.image.dtype
        np.testing.assert_array_equal(ours.label, theirs.label)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-3)  # type: ignore[arg-type]
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == set(synapse.ids)
    assert {row["part"] for row in rows} == {"train", "test"}


def test_nnunets_folds_are_read_and_written(synapse: Store, abdomens: Path, tmp_path: Path) -> None:
    folder = write_nnunet(synapse, tmp_path, split="18-12")
    ids = [row for row in synapse.ids if row not in synapse.splits["18-12"]["test"]]
    folds = [{"train": ids[1:], "val": ids[:1]}, {"train": ids[:2], "val": ids[2:]}]
    (folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    prepare("nnunet", folder, tmp_path / "s")
    store = Store(tmp_path / "s")
    assert {"fold-0", "fold-1", "seed-0", "given"} == set(store.splits)
    assert store.splits["fold-1"]["valid"] == ids[2:]
    again = write_nnunet(store, tmp_path / "again", split="fold-0")
    written = json.loads((again / "splits_final.json").read_text(encoding="utf-8"))
    assert written == [{"train": ids[1:], "val": ids[:1]}]


def _two_channels(folder: Path, **about: Any) -> Path:
    rng = np.random.default_rng(0)
    for k in range(3):
        for channel in range(2):
            values = rng.integers(0, 99, (8, 7, 4)).astype(np.int16)
            write(folder / "imagesTr" / f"p{k}_a_{channel:04d}.nii.gz", values)
        write(
            folder / "labelsTr" / f"p{k}_a.nii.gz", rng.integers(0, 4, (8, 7, 4)).astype(np.uint8)
        )
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "a": 1, "b": 2, "c": 3},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **about,
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_channels_of_nnunet_are_joined(tmp_path: Path) -> None:
    folder = _two_channels(tmp_path / "Dataset001_two")
    prepare("nnunet", folder, tmp_path / "s", group="^(p[0-9])")
    store = Store(tmp_path / "s")
    assert store.groups == {f"p{k}_a": f"p{k}" for k in range(3)}
    case = store.case("p0_a")
    assert case.image.shape == (4, 2, 7, 8)
    for channel in range(2):
        image = nibabel.load(folder / "imagesTr" / f"p0_a_{channel:04d}.nii.gz")
        np.testing.assert_array_equal(
            case.image[:, channel], np.asarray(image.dataobj).transpose(2, 1, 0)
        )
    again = write_nnunet(store, tmp_path / "again")
    assert (
        len(list((again / "imagesTr").iterdir())) + len(list((again / "imagesTs").iterdir())) == 6
    )
    (folder / "imagesTr" / "p1_a_0001.nii.gz").unlink()
    assert any("p1_a_0001" in line for line in prepare("nnunet", folder, tmp_path / "t").missing)
    path = folder / "imagesTr" / "p0_a_0001.nii.gz"
    write(path, np.zeros((8, 7, 4), np.int16), np.diag([-1.0, -1.0, 5.0, 1.0]))
    with pytest.raises(InputError, match="mm away"):
        prepare("nnunet", folder, tmp_path / "u")


def test_regions_and_ignored_values_of_nnunet(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3}
    folder = _two_channels(tmp_path / "Dataset001_regions", labels=labels)
    prepare("nnunet", folder, tmp_path / "s")
    store = Store(tmp_path / "s")
    assert (store.target.kind, store.target.names) == ("overlapping", ("whole", "core", "tip"))
    ids = np.asarray(nibabel.load(folder / "labelsTr" / "p0_a.nii.gz").dataobj).transpose(2, 1, 0)
    label = store.case("p0_a").label
    assert label is not None
    for k, held in enumerate(([1, 2, 3], [2, 3], [3])):
        np.testing.assert_array_equal(label[:, k], np.isin(ids, held))
    with pytest.raises(UsageError, match="overlapping"):
        write_nnunet(store, tmp_path / "again")
    shutil.rmtree(folder)
    folder = _two_channels(
        tmp_path / "Dataset002_ignore", labels={"background": 0, "a": 1, "b": 2, "ignore": 3}
    )
    prepare("nnunet", folder, tmp_path / "t")
    store = Store(tmp_path / "t")
    assert (store.target.names, store.target.ignored) == (("background", "a", "b"), 3)
    about = json.loads((write_nnunet(store, tmp_path / "x") / "dataset.json").read_text("utf-8"))
    assert about["labels"]["ignore"] == 3


def test_nnunet_version_1(tmp_path: Path) -> None:
    folder = _two_channels(
        tmp_path / "Task001_old",
        channel_names={},
        modality={"0": "T1", "1": "T2"},
        labels={"0": "background", "1": "a", "2": "b", "3": "c"},
    )
    assert prepare("nnunet", folder, tmp_path / "s").cases == 3
    assert Store(tmp_path / "s").target.names == ("background", "a", "b", "c")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"labels": {"background": 0, "a": 2}}, "without a gap"),
        ({"labels": []}, "labels"),
        ({"file_ending": ".xyz"}, "file_ending"),
        ({"channel_names": {"0": "T1"}}, "1 channels, as dataset.json declares"),
    ],
)
def test_wrong_descriptions_are_refused(tmp_path: Path, about: Any, message: str) -> None:
    folder = _two_channels(tmp_path / "Dataset001_two", **about)
    with pytest.raises(InputError, match=message):
        prepare("nnunet", folder, tmp_path / "s")


def test_pictures_for_nnunet(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    target = TargetSpec(kind="binary", names=("lesion",))
    with StoreWriter(tmp_path / "s", "photos", target) as writer:
        for k in range(3):
            image = rng.integers(0, 255, (1, 3, 6, 8)).astype(np.uint8)
            writer.add(Case(f"a b{k}", f"g{k}", image, image[:, 0] // 128))
        store = writer.finish({"x": {"train": ["a b0"], "valid": ["a b1"], "test": ["a b2"]}})
    folder = write_nnunet(store, tmp_path)
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert (about["file_ending"], about["labels"]) == (".png", {"background": 0, "lesion": 1})
    assert about["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    picture = np.asarray(Image.open(folder / "imagesTs" / "a-b2_0000.png"))
    np.testing.assert_array_equal(np.moveaxis(picture, -1, 0), store.case("a b2").image[0])
    prepare("nnunet", folder, tmp_path / "t")
    np.testing.assert_array_equal(
        Store(tmp_path / "t").case("a-b0").label, store.case("a b0").label
    )
    with pytest.raises(UsageError, match="new folder"):
        write_nnunet(store, tmp_path)
    with pytest.raises(UsageError, match="channels"):
        write_nnunet(store, tmp_path / "y", channels=["grey"])


def test_cases_without_a_geometry_for_nnunet(tmp_path: Path) -> None:
    image = np.arange(4 * 5 * 6, dtype=np.float64).reshape(4, 1, 5, 6).astype(np.float16)
    label = (image[:, 0] > 60).astype(np.uint8)
    target = TargetSpec(names=("background", "a"))
    with StoreWriter(tmp_path / "s", "plain", target) as writer:
        writer.add(Case("c", "c", image, label, stack="space", spacing=(5.0, 2.0, 1.0)))
        store = writer.finish()
    prepare("nnunet", write_nnunet(store, tmp_path), tmp_path / "t")
    back = Store(tmp_path / "t").case("c")
    np.testing.assert_array_equal(back.image, image)
    np.testing.assert_array_equal(back.label, label)
    assert back.spacing == pytest.approx((5.0, 2.0, 1.0))


def test_the_command_exports(
    synapse: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(
            [
                "export-nnunet",
                str(synapse.path),
                str(tmp_path),
                "--split",
                "18-12",
                "--channels",
                "CT",
            ]
        )
    assert left.value.code == 0
    assert "Dataset001_synapse" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["export-nnunet", str(synapse.path), str(tmp_path / "y")])
    assert left.value.code == 2
    assert "18-12" in capsys.readouterr().err


PATIENTS = {"p1": "train", "p2": "train", "p3": "valid", "p4": "test", "p5": "test"}


def _patients(path: Path, *, grouped: bool = True) -> Store:
    """Two scans of each of five patients (or ten cases, if nothing says which patients)."""
    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    with StoreWriter(path, "hearts", TARGET) as writer:
        for patient, part in PATIENTS.items():
            for phase in ("ED", "ES"):
                id = f"{patient} {phase}"
                writer.add(made_case(id, group=patient if grouped else id))
                parts[part].append(id)
        return writer.finish({"mine": parts}, grouped=grouped)


def _exit(*arguments: object) -> object:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


@pytest.mark.parametrize("grouped", [True, False])
def test_the_command_that_the_help_gives_scores_what_was_exported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    grouped: bool,
) -> None:
    store = _patients(tmp_path / "s", grouped=grouped)
    assert _exit("export-nnunet", store.path, tmp_path, "--number", 7, "--name", "Made") == 0
    folder = tmp_path / "Dataset007_Made"
    shutil.copytree(folder / "labelsTs", tmp_path / "PREDICTIONS")
    given = re.search(r"`segweave (score [^`]+)`", export_nnunet.__doc__ or "")
    assert given is not None
    monkeypatch.chdir(folder)
    words = given[1].replace("PREDICTIONS", "../PREDICTIONS").split()
    assert _exit(*words, "-q") == 0
    found = read_evaluation(folder / "scores")
    ids = {"p4 ED", "p4 ES", "p5 ED", "p5 ES"}
    assert {row.case for row in found.rows} == ids
    assert {row.group for row in found.rows} == ({"p4", "p5"} if grouped else ids)
    assert found.manifest.grouped == grouped
    assert ("No groups were given" in capsys.readouterr().out) != grouped
    # A test case without a prediction is missed all the same.
    next((tmp_path / "PREDICTIONS").iterdir()).unlink()
    assert _exit(*words, "-q", "--force") == 2
    assert "no prediction in" in capsys.readouterr().err


def test_what_was_exported_comes_back_with_its_patients_and_parts(tmp_path: Path) -> None:
    folder = write_nnunet(_patients(tmp_path / "s"), tmp_path)
    report = prepare("nnunet", folder, tmp_path / "t")
    assert report.warnings == []
    back = Store(tmp_path / "t")
    assert back.grouped
    assert back.groups == {id: id[:2] for id in back.ids}
    for part in ("train", "valid", "test"):
        wanted = {id for id in back.ids if PATIENTS[id[:2]] == part}
        assert set(back.splits["given"][part]) == wanted
    for split in back.splits.values():
        homes = {(back.groups[id], part) for part, ids in split.items() for id in ids}
        assert len(homes) == len({group for group, _ in homes})
    prepare("nnunet", folder, tmp_path / "u", group="^p[0-9]-E[DS]")
    assert len(set(Store(tmp_path / "u").groups.values())) == 10


def test_tables_that_say_nothing_of_patients_are_left_alone(tmp_path: Path) -> None:
    folder = write_nnunet(_patients(tmp_path / "s", grouped=False), tmp_path)
    report = prepare("nnunet", folder, tmp_path / "t")
    assert not Store(tmp_path / "t").grouped
    assert "every case is its own group" in report.warnings[0]
    (folder / "cases.csv").write_text("case,age\np1-ED,60\n", encoding="utf-8")
    prepare("nnunet", folder, tmp_path / "u")
    assert "given" not in Store(tmp_path / "u").splits


def test_only_what_is_trained_on_becomes_training_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    homes = {"a": "train", "b": "valid", "c": "testA", "d": "testB", "e": "", "f": "testA"}
    parts = {name: [id for id in homes if homes[id] == name] for name in homes.values() if name}
    with StoreWriter(tmp_path / "s", "hearts", TARGET) as writer:
        for id in homes:
            writer.add(made_case(id))
        store = writer.finish({"mine": parts, "other": {"train": ["a"], "test": ["b"]}})
    assert in_no_part(store, "other") == ["c", "d", "e", "f"]
    assert _exit("export-nnunet", store.path, tmp_path, "--split", "mine") == 0
    assert "left out, in no part of the split: 1 of 6 cases: e" in capsys.readouterr().err
    folder = tmp_path / "Dataset001_hearts"
    held = {
        name: sorted(path.name[0] for path in (folder / name).iterdir())
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
    }
    assert held["imagesTr"] == held["labelsTr"] == ["a", "b"]
    assert held["imagesTs"] == held["labelsTs"] == ["c", "d", "f"]
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert about["numTraining"] == 2
    report = prepare("nnunet", folder, tmp_path / "t")
    assert report.missing == []
    given = Store(tmp_path / "t").splits["given"]
    assert given == {
        "train": ["a"],
        "valid": ["b"],
        "test": [],
        **{part: parts[part] for part in ("testA", "testB")},
    }
    with pytest.raises(UsageError, match="did you mean mine"):
        write_nnunet(store, tmp_path / "x", split="mein")


def test_an_ignored_255_of_pictures_stays_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_tiles"
    masks = {"a": (0, 1, 2, 255), "b": (0, 255)}
    for id, ids in masks.items():
        for place, values in (("imagesTr", range(48)), ("labelsTr", ids)):
            name = f"{id}_0000.png" if place == "imagesTr" else f"{id}.png"
            (folder / place).mkdir(parents=True, exist_ok=True)
            pixels = np.resize(np.asarray(values, np.uint8), (6, 8))
            Image.fromarray(pixels).save(folder / place / name)
    about = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "a": 1, "b": 2, "ignore": 255},
        "numTraining": 2,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    prepare("nnunet", folder, tmp_path / "s")
    store = Store(tmp_path / "s")
    assert store.target.ignored == 255
    for id, ids in masks.items():
        label = store.case(id).label
        np.testing.assert_array_equal(np.unique(label), ids)  # type: ignore[arg-type]
