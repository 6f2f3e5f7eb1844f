from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import InputError, UsageError
from segweave.phantoms.skin import write_skin
from tests.datasets.pictures import blob, check_case, colour, no_group_crosses, write

TRAIN = "ISIC2018_Task1-2_Training_Input"
TRUTH = "ISIC2018_Task1_Training_GroundTruth"


@pytest.fixture(scope="module")
def isic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_skin(tmp_path_factory.mktemp("skin") / "isic", images=10, size=(30, 40))


@pytest.fixture(scope="module")
def ph2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_skin(
        tmp_path_factory.mktemp("skin") / "ph2", images=9, layout="ph2", size=(30, 40)
    )


def test_isic_in_its_own_layout(isic: Path, tmp_path: Path) -> None:
    report = prepare("isic2018", isic, tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("release", 10, 10)
    assert "train: 2594 images are expected, 7 are there" in report.missing
    assert "test: 1000 images are expected, 2 are there" in report.missing
    store = Store(tmp_path / "s")
    assert len({store.entry(id).size for id in store.ids}) > 1
    assert {part: len(ids) for part, ids in store.splits["official"].items()} == {
        "train": 7,
        "valid": 1,
        "test": 2,
    }
    # The challenge's test images are in no other split.
    held_out = set(store.splits["official"]["test"])
    for name in ("seed-0", "fold-0", "fold-4"):
        assert not held_out & {id for ids in store.splits[name].values() for id in ids}
    assert "sorted-1815-259-520" not in store.splits
    no_group_crosses(store)
    for id in store.splits["official"]["train"]:
        check_case(store, id, isic / TRAIN / f"{id}.jpg", isic / TRUTH / f"{id}_segmentation.png")
        assert store.case(id).stack == "single"
    assert store.target.foreground == {1: "lesion"}


@pytest.mark.parametrize(
    ("name", "images", "masks", "ending"),
    [
        (
            "isic2016",
            "ISBI2016_ISIC_Part1_Training_Data",
            "ISBI2016_ISIC_Part1_Training_GroundTruth",
            "_Segmentation",
        ),
        (
            "isic2017",
            "ISIC-2017_Test_v2_Data",
            "ISIC-2017_Test_v2_Part1_GroundTruth",
            "_segmentation",
        ),
        ("isic2018", "images", "masks", ""),
        ("isic2018", "train/images", "train/masks", "_segmentation"),
    ],
)
def test_isic_of_every_year(
    tmp_path: Path, name: str, images: str, masks: str, ending: str
) -> None:
    for number in range(3):
        write(tmp_path / images / f"ISIC_{number:07d}.jpg", colour())
        write(tmp_path / images / f"ISIC_{number:07d}_superpixels.png", colour())
        write(tmp_path / masks / f"ISIC_{number:07d}{ending}.png", blob())
    prepare(name, tmp_path, tmp_path / "s")
    assert Store(tmp_path / "s").ids == [f"ISIC_{number:07d}" for number in range(3)]


def test_sorted_split_of_isic_2018(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from segweave.datasets import isic as module
    from segweave.datasets._pairs import Pair

    ids = [f"ISIC_{number:07d}" for number in range(2594)]
    pairs = [Pair(id, Path(id), Path(id), (4, 4), "train") for id in reversed(ids)]
    home = {id: id for id in ids}
    cut = module._splits(2018, pairs, home)[0]["sorted-1815-259-520"]
    assert [len(part) for part in cut.values()] == [1815, 259, 520]
    assert cut["train"] + cut["valid"] + cut["test"] == ids
    # With lesions known, its name says where it cuts one.
    home[ids[0]] = home[ids[-1]] = "one"
    splits, (warning,) = module._splits(2018, pairs, home)
    assert "sorted-1815-259-520" not in splits
    assert splits["sorted-1815-259-520-leaks"] == cut
    assert warning.startswith("sorted-1815-259-520-leaks: ")


def test_lesions_from_a_table(isic: Path, tmp_path: Path) -> None:
    table = tmp_path / "HAM10000_metadata.csv"
    ids = [p.stem for folder in isic.iterdir() for p in folder.glob("*.jpg")]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lesion_id", "image_id", "dx"])
        writer.writerows([f"HAM_{k // 2}", id, "nv"] for k, id in enumerate(sorted(ids)))
    report = prepare("isic2018", isic, tmp_path / "s", groups=table)
    assert report.groups == 5
    # One of these lesions is trained on and validated on.
    (warning,) = report.warnings
    assert warning.startswith("official-leaks: ")
    assert report.splits["official-leaks"] == {"train": 7, "valid": 1, "test": 2}
    assert "official" not in report.splits
    no_group_crosses(Store(tmp_path / "s"))
    table.write_text("lesion_id,image_id\nHAM_0,ISIC_0000010\n", encoding="utf-8")
    with pytest.raises(InputError, match="none for 9"):
        prepare("isic2018", isic, tmp_path / "t", groups=table)
    table.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="one of the columns"):
        prepare("isic2018", isic, tmp_path / "t", groups=table)


def test_what_is_missing_or_damaged_is_listed(isic: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(isic, tmp_path / "raw")
    images, masks = sorted((raw / TRAIN).iterdir()), sorted((raw / TRUTH).iterdir())
    masks[0].unlink()
    images[1].unlink()
    images[2].write_bytes(images[2].read_bytes()[:-200])
    masks[3].write_bytes(masks[3].read_bytes()[:60])
    write(masks[4], blob((5, 6)))
    images[5].write_bytes(b"")
    report = prepare("isic2018", raw, tmp_path / "s")
    assert report.cases == 10 - 6
    text = "\n".join(report.missing)
    assert f"1 images have no mask and are left out: {images[0].name}" in text
    assert f"1 masks have no image: {masks[1].name}" in text
    assert "3 pairs have a damaged file" in text
    for wrong in (f"{images[2].name} (cut off)", masks[3].name, f"{images[5].name} (empty)"):
        assert wrong in text
    assert f"{masks[4].name} (5 × 6, its image" in text
    with pytest.raises(InputError, match="damaged"):
        prepare("isic2018", raw, tmp_path / "t", strict=True)


def test_ph2_in_its_own_layout(ph2: Path, tmp_path: Path) -> None:
    report = prepare("ph2", ph2, tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("release", 9, 9)
    assert report.missing == ["200 cases are expected, 9 are there"]
    store = Store(tmp_path / "s")
    root = ph2 / "PH2 Dataset images"
    for id in store.ids:
        image = root / id / f"{id}_Dermoscopic_Image" / f"{id}.bmp"
        check_case(store, id, image, root / id / f"{id}_lesion" / f"{id}_lesion.bmp")
        assert store.case(id).attributes["diagnosis"] in (
            "Common Nevus",
            "Atypical Nevus",
            "Melanoma",
        )
    assert store.splits["test-only"]["test"] == store.ids
    no_group_crosses(store)
    # The folder inside, and a copy without its table and one mask.
    raw = shutil.copytree(root, tmp_path / "raw")
    shutil.rmtree(raw / "IMD002" / "IMD002_lesion")
    report = prepare("ph2", raw, tmp_path / "t")
    assert report.cases == 8
    assert "1 images have no mask and are left out: IMD002.bmp" in report.missing
    assert report.warnings == ["the diagnosis of 8 images is not known"]


def test_phantoms_look_like_lesions(isic: Path, ph2: Path, tmp_path: Path) -> None:
    from tests.datasets.pictures import read

    for image in sorted((isic / TRAIN).iterdir()):
        mask = read(isic / TRUTH / f"{image.stem}_segmentation.png")
        pixels = read(image).astype(float)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.01 < (mask > 0).mean() < 0.7
        assert pixels[mask > 0].mean() < pixels[mask == 0].mean() + 25
    write_skin(tmp_path / "a", images=2, size=(24, 24))
    write_skin(tmp_path / "b", images=2, size=(24, 24))
    one, two = (
        [p.read_bytes() for p in sorted(f.rglob("*.*"))] for f in (tmp_path / "a", tmp_path / "b")
    )
    assert one == two
    with pytest.raises(UsageError, match="did you mean ph2"):
        write_skin(tmp_path, layout="ph")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="24 × 24"):
        write_skin(tmp_path, size=(4, 4))


def test_wrong_folders(tmp_path: Path) -> None:
    for name in ("isic2016", "isic2017", "isic2018", "ph2"):
        with pytest.raises(InputError, match="nothing like it"):
            prepare(name, tmp_path, tmp_path / "s")
        with pytest.raises(UsageError, match="did you mean release"):
            prepare(name, tmp_path, tmp_path / "s", layout="relase")


@pytest.mark.real
def test_real_isic_and_ph2(real_data: Path, tmp_path: Path) -> None:
    report = prepare(
        "ph2",
        real_data / "ph2",
        tmp_path / "p",
    )
    assert (report.layout, report.cases) == ("release", 20)
    store = Store(tmp_path / "p")
    found = [store.case(id).attributes["diagnosis"] for id in store.ids]
    assert sorted(found) == ["Atypical Nevus"] * 9 + ["Common Nevus"] * 9 + ["Melanoma"] * 2
    for part in (store.splits[f"fold-{k}"]["test"] for k in range(5)):
        assert len(part) == 4


@pytest.mark.real
@pytest.mark.slow
def test_real_isic_2018(real_data: Path, tmp_path: Path) -> None:
    report = prepare("isic2018", real_data / "isic2018", tmp_path / "s")
    assert (report.layout, report.cases) == ("pairs", 500)
    assert report.missing == ["3694 cases are expected, 500 are there"]
    store = Store(tmp_path / "s")
    assert {part: len(ids) for part, ids in store.splits["seed-0"].items()} == {
        "train": 350,
        "valid": 50,
        "test": 100,
    }
    with (real_data / "isic2018" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))[::20]
    for row in rows:
        label = store.case(row["name"]).label
        assert label is not None
        assert label.mean() == pytest.approx(float(row["fg"]), abs=1e-4)


@pytest.mark.slow
def test_single_images_of_many_sizes_train_and_are_evaluated(isic: Path, tmp_path: Path) -> None:
    import segweave

    prepare("isic2018", isic, tmp_path / "s")
    sets = [
        "training.epochs=1",
        "network.options.width=2",
        "network.options.levels=3",
        "input.size=[32,32]",
    ]
    for arm in ("conv", "sa-lstm"):
        out = tmp_path / f"run{arm}"
        woven = [f"context.name={arm}", "weaving.tiles=2"]
        segweave.train("isic2018-unet-128", tmp_path / "s", out, sets=[*sets, *woven])
        scored = {row.case for row in segweave.evaluate(out).rows}
        assert scored == set(Store(tmp_path / "s").splits["seed-0"]["test"])
    sets += ["data.split=fold-{fold}", "fold=2"]
    segweave.train("isic2018-unet-128", tmp_path / "s", tmp_path / "f", sets=sets)
    scored = {row.case for row in segweave.evaluate(tmp_path / "f").rows}
    assert scored == set(Store(tmp_path / "s").splits["fold-2"]["test"])
