from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from segweave.data.inputs import window_indices
from segweave.data.splits import crossing, only_split
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.datasets._polyps import fcbformer_split, read_sequences
from segweave.datasets.cvc_clinicdb import shipped_sequences
from segweave.datasets.published_splits import load_split
from segweave.errors import InputError, UsageError
from segweave.phantoms.polyp import write_polyps
from tests.datasets.pictures import blob, check_case, colour, no_group_crosses, write

SMALL = (30, 40)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_polyps(tmp_path_factory.mktemp("polyps") / "c", 6, 4, size=SMALL)


def test_the_shipped_sequences() -> None:
    spans, blocks = shipped_sequences()
    assert len(spans) == 29
    numbers = [n for first, last in spans.values() for n in range(first, last + 1)]
    assert numbers == list(range(1, 613))
    assert set(blocks) == set(spans)
    split = load_split("cvc-clinicdb")
    assert split.name == "sequences"
    assert sorted(s for names in split.parts.values() for s in names) == sorted(spans)
    assert len(split.parts["test"]) >= 7
    # Neighbours that may show one patient are never split.
    home = {name: part for part, names in split.parts.items() for name in names}
    assert all(home[name] == home[first] for name, first in blocks.items())
    frames = {
        part: sum(spans[name][1] - spans[name][0] + 1 for name in names)
        for part, names in split.parts.items()
    }
    assert frames == {"train": 345, "valid": 91, "test": 176}


@pytest.mark.real
def test_the_table_is_that_of_the_real_set(real_data: Path) -> None:
    spans = read_sequences(real_data / "cvc-clinicdb" / "sequences.csv")
    assert spans == shipped_sequences()[0]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_clinicdb_in_its_own_layout(clinic: Path, tmp_path: Path, ending: str) -> None:
    raw = (
        clinic if ending == "png" else write_polyps(tmp_path / "r", 3, 3, size=SMALL, ending="tif")
    )
    report = prepare("cvc-clinicdb", raw, tmp_path / "s")
    count = 6 if ending == "png" else 3
    assert (report.layout, report.groups, report.cases) == ("release", count, count)
    assert any(f"{29 - count} sequences are not there" in line for line in report.missing)
    assert any("are not whole" in line for line in report.missing)
    store = Store(tmp_path / "s")
    assert all(store.splits["sequences"].values())
    no_group_crosses(store)
    spans = shipped_sequences()[0]
    for id in store.ids:
        case = store.case(id)
        assert (case.stack, case.group) == ("time", id)
        first = spans[id][0]
        assert case.attributes["frames"] == list(range(first, first + case.slices))
        for frame in range(case.slices):
            name = f"{first + frame}.{ending}"
            check_case(store, id, raw / "Original" / name, raw / "Ground Truth" / name, frame)


def test_the_release_with_both_kinds_of_files(clinic: Path, tmp_path: Path) -> None:
    for kind in ("PNG", "TIF"):
        shutil.copytree(clinic, tmp_path / "raw" / kind)
    assert prepare("cvc-clinicdb", tmp_path / "raw", tmp_path / "s").slices == 24


def test_windows_do_not_cross_what_is_absent(clinic: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(clinic, tmp_path / "raw")
    (raw / "Original" / "3.png").unlink()
    bad = raw / "Original" / "27.png"
    bad.write_bytes(bad.read_bytes()[:-30])
    report = prepare("cvc-clinicdb", raw, tmp_path / "s")
    assert "1 masks have no image: 3.png" in report.missing
    assert any("27.png (cut off)" in line for line in report.missing)
    case = Store(tmp_path / "s").case("sequence_01")
    assert case.attributes["frames"] == [1, 2, 4]
    assert case.gaps == (2,)
    assert window_indices(case.slices, 2, 3, gaps=case.gaps) == [2, 2, 2]
    assert Store(tmp_path / "s").case("sequence_02").attributes["frames"] == [26, 28, 29]


def test_frames_that_change_their_size(clinic: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(clinic, tmp_path / "raw")
    for number in (3, 4):
        write(raw / "Original" / f"{number}.png", colour())
        write(raw / "Ground Truth" / f"{number}.png", blob())
    # A grey frame among colour ones.
    write(raw / "Original" / "26.png", colour(SMALL)[..., 0])
    report = prepare("cvc-clinicdb", raw, tmp_path / "s")
    assert (report.groups, report.cases) == (6, 7)
    assert any("change their size" in line for line in report.warnings)
    store = Store(tmp_path / "s")
    parts = [store.case(f"sequence_01_part{k}") for k in (1, 2)]
    assert [case.attributes["frames"] for case in parts] == [[1, 2], [3, 4]]
    assert [case.size for case in parts] == [SMALL, (12, 16)]
    assert {case.group for case in parts} == {"sequence_01"}
    assert store.case("sequence_02").image.shape[1] == 3
    no_group_crosses(store)


def test_frames_as_papers_split_them(clinic: Path, tmp_path: Path) -> None:
    report = prepare("cvc-clinicdb", clinic, tmp_path / "s", unit="frame")
    assert (report.groups, report.cases, report.slices) == (24, 24, 24)
    assert "near copies" in report.warnings[-1]
    store = Store(tmp_path / "s")
    assert store.ids[:5] == ["1", "2", "3", "4", "26"]
    assert set(store.splits) == {"sequences", "random-80-10-10-leaks"}
    assert all("sequence" in store.case(id).attributes for id in store.ids)
    homes: dict[str, set[str]] = {}
    for part, ids in store.splits["sequences"].items():
        for id in ids:
            homes.setdefault(store.case(id).attributes["sequence"], set()).add(part)
    assert all(len(parts) == 1 for parts in homes.values())


def test_fcbformers_split() -> None:
    # NumPy's legacy permutations of state 42: of 10 it begins 8, of the 9 that are left 7.
    names = [str(number) for number in range(10)]
    parts = fcbformer_split(names[::-1])
    assert parts["test"] == ["8"]
    left = [names[k] for k in (1, 5, 0, 7, 2, 9, 4, 3, 6)]
    assert parts["valid"] == [left[7]]
    assert len(parts["train"]) == 8
    sizes = [len(ids) for ids in fcbformer_split([str(n) for n in range(1, 613)]).values()]
    assert sizes == [490, 61, 61]


def test_masks_of_every_kind(tmp_path: Path) -> None:
    mask = blob()
    noisy = np.clip(mask.astype(int) + np.arange(16) - 8, 0, 255).astype(np.uint8)
    kinds = {
        1: (mask, None),
        2: (mask // 255, None),
        3: (mask, "1"),
        4: (noisy, None),
        5: (mask, "RGB"),
    }
    for number, (values, mode) in kinds.items():
        write(tmp_path / "images" / f"{number}.png", colour())
        write(tmp_path / "masks" / f"{number}.png", values, mode)
    write(tmp_path / "images" / "6.jpg", colour())
    write(tmp_path / "masks" / "6.jpg", mask, quality=85)
    write(tmp_path / "images" / "7.png", colour())
    write(tmp_path / "masks" / "7.png", mask * 0)
    prepare("cvc-clinicdb", tmp_path, tmp_path / "s")
    label = Store(tmp_path / "s").case("sequence_01").label
    assert label is not None
    for frame in range(6):
        np.testing.assert_array_equal(label[frame], mask > 0, err_msg=str(frame + 1))
    assert not label[6].any()
    write(tmp_path / "masks" / "2.png", mask // 255 * 7)
    with pytest.raises(InputError, match="values up to 7"):
        prepare("cvc-clinicdb", tmp_path, tmp_path / "t")


@pytest.mark.parametrize(
    ("name", "images", "masks"),
    [
        ("cvc-colondb", "{}.tiff", "p{}.tiff"),
        ("etis-larib", "ETIS-LaribPolypDB/{}.tif", "Ground Truth/p{}.tif"),
    ],
)
def test_sets_that_papers_test_on(tmp_path: Path, name: str, images: str, masks: str) -> None:
    raw = write_polyps(tmp_path / "raw", 3, 3, layout=name, size=SMALL)
    report = prepare(name, raw, tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("release", 9, 9)
    assert any("own group" in line for line in report.warnings)
    store = Store(tmp_path / "s")
    assert store.ids == [str(number) for number in range(1, 10)]
    by_frame = {"seed-0-leaks"} if name == "cvc-colondb" else set()
    assert set(store.splits) == {"test-only", *by_frame}
    assert only_split(store.splits) == "test-only"
    for id in store.ids:
        check_case(store, id, raw / images.format(id), raw / masks.format(id))
    # Whoever knows the sequences says so.
    table = tmp_path / "sequences.csv"
    table.write_text("sequence,first_frame,last_frame\n1,1,3\n2,4,6\n3,7,9\n", encoding="utf-8")
    report = prepare(name, raw, tmp_path / "t", sequences=table)
    assert (report.groups, report.cases, report.warnings) == (3, 3, [])
    assert set(Store(tmp_path / "t").splits) == {
        "test-only",
        "seed-0",
        "fold-0",
        "fold-1",
        "fold-2",
    }
    table.write_text("sequence,first_frame,last_frame\n1,1,4\n2,4,6\n", encoding="utf-8")
    with pytest.raises(InputError, match="overlap"):
        prepare(name, raw, tmp_path / "u", sequences=table)
    table.write_text("sequence,first\n1,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="the columns sequence"):
        prepare(name, raw, tmp_path / "u", sequences=table)


def test_endoscene_and_its_test_frames(tmp_path: Path) -> None:
    raw = write_polyps(tmp_path / "raw", 2, 3, layout="cvc-endoscene", size=SMALL)
    report = prepare("cvc-endoscene", raw, tmp_path / "s")
    assert report.cases == 6
    assert report.splits["seed-0-leaks"] == {"train": 4, "valid": 1, "test": 1}
    # With the videos known there is a draw by video beside the papers' draw by frame.
    table = tmp_path / "groups.csv"
    table.write_text(
        "case,group\n" + "".join(f"{id},{id[:7]}\n" for id in Store(tmp_path / "s").ids),
        encoding="utf-8",
    )
    report = prepare("cvc-endoscene", raw, tmp_path / "u", groups=table)
    assert {"test-only", "seed-0", "seed-0-leaks"} == set(report.splits)
    groups = Store(tmp_path / "u").groups
    assert crossing(Store(tmp_path / "u").splits["seed-0"], groups) is None
    assert crossing(Store(tmp_path / "u").splits["seed-0-leaks"], groups) is not None
    store = Store(tmp_path / "s")
    assert store.ids[0] == "CVC-300_1"
    check_case(store, "CVC-612_5", raw / "CVC-612/bbdd/5.bmp", raw / "CVC-612/gtpolyp/5.bmp")
    for number in range(149, 152):
        write(tmp_path / "TestDataset/CVC-300/images" / f"{number}.png", colour())
        write(tmp_path / "TestDataset/CVC-300/masks" / f"{number}.png", blob())
    report = prepare("cvc-300", tmp_path, tmp_path / "t")
    assert (report.layout, report.cases) == ("pranet", 3)
    assert report.missing == ["60 slices are expected, 3 are there"]


def test_kvasir_in_its_own_layout(tmp_path: Path) -> None:
    raw = write_polyps(tmp_path / "raw", 2, 5, layout="kvasir-seg", size=SMALL)
    report = prepare("kvasir-seg", raw, tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("release", 10, 10)
    store = Store(tmp_path / "s")
    assert len({store.entry(id).size for id in store.ids}) > 1
    for id in store.ids:
        check_case(store, id, raw / "images" / f"{id}.jpg", raw / "masks" / f"{id}.jpg")
    no_group_crosses(store)
    # The authors' own lists, where they lie beside.
    names = [f"{id}.jpg" for id in store.ids]
    (raw / "train.txt").write_text("\n".join(names[:8]) + "\n", encoding="utf-8")
    (raw / "val.txt").write_text("\n".join([*names[8:], "absent.jpg"]) + "\n", encoding="utf-8")
    report = prepare("kvasir-seg", raw, tmp_path / "t")
    assert report.splits["train-val"] == {"train": 8, "valid": 2, "test": 0}
    assert any("absent" in line for line in report.missing)


def test_the_benchmark_as_pranets_authors_packed_it(tmp_path: Path) -> None:
    raw = write_polyps(tmp_path / "raw", 2, 5, layout="pranet", size=SMALL)
    report = prepare("kvasir-seg", raw, tmp_path / "k")
    assert (report.layout, report.cases) == ("pranet", 10)
    assert report.splits["pranet"] == {"train": 8, "valid": 0, "test": 2}
    report = prepare("cvc-clinicdb", raw, tmp_path / "c")
    assert (report.layout, report.cases, report.slices) == ("pranet", 2, 10)
    report = prepare("cvc-clinicdb", raw, tmp_path / "f", unit="frame")
    assert report.splits["pranet-leaks"] == {"train": 8, "valid": 0, "test": 2}


def test_wrong_use(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing like it"):
        prepare("cvc-clinicdb", tmp_path, tmp_path / "s")
    with pytest.raises(UsageError, match="did you mean"):
        prepare("cvc-clinicdb", clinic, tmp_path / "s", unit="frames")
    both = shutil.copytree(clinic, tmp_path / "both")
    shutil.copytree(both / "Original", both / "images")
    shutil.copytree(both / "Ground Truth", both / "masks")
    with pytest.raises(UsageError, match="release and pairs"):
        prepare("cvc-clinicdb", both, tmp_path / "s")
    assert prepare("cvc-clinicdb", both, tmp_path / "s", layout="pairs").cases == 6
    shutil.copy(both / "images" / "1.png", both / "images" / "01.png")
    with pytest.raises(InputError, match="a second '1'"):
        prepare("cvc-clinicdb", both, tmp_path / "t", layout="pairs")
    for wrong in ({"layout": "kvasir"}, {"videos": 0}, {"frames": 26}, {"size": (8, 8)}):
        with pytest.raises(UsageError):
            write_polyps(tmp_path / "x", **wrong)  # type: ignore[arg-type]


def test_phantom_videos_move_and_keep_their_polyp(clinic: Path) -> None:
    from tests.datasets.pictures import read

    masks = {int(p.stem): read(p) > 0 for p in (clinic / "Ground Truth").iterdir()}
    assert all(0.002 < mask.mean() < 0.6 for mask in masks.values())
    frames = {n: read(clinic / "Original" / f"{n}.png").astype(float) for n in masks}
    near = np.mean([np.abs(frames[n + 1] - frames[n]).mean() for n in (1, 2, 3)])
    far = np.abs(frames[1] - frames[26]).mean()
    assert 0.5 < near < far


@pytest.mark.slow
def test_a_store_of_videos_trains_and_is_evaluated(clinic: Path, tmp_path: Path) -> None:
    import segweave
    from segweave.training import Run

    prepare("cvc-clinicdb", clinic, tmp_path / "s")
    sets = [
        "training.epochs=2",
        "training.validate_every=1",
        "network.options.width=2",
        "network.options.levels=3",
        "input.size=[32,32]",
    ]
    for arm in ("", "conv", "sa-lstm"):
        out = tmp_path / f"run{arm}"
        woven = [f"context.name={arm}", "input.slices=3"] if arm else []
        run = segweave.train("cvc-clinicdb-unet-128", tmp_path / "s", out, sets=[*sets, *woven])
        assert isinstance(run, Run)
        evaluation = segweave.evaluate(out)
        test = Store(tmp_path / "s").splits["sequences"]["test"]
        scored = {row.case for row in evaluation.rows}
        assert scored == set(test)
        # Every frame is scored by itself.
        slices = {row.score.slice for row in evaluation.rows if row.case == test[0]}
        assert slices == {0, 1, 2, 3}


@pytest.mark.real
def test_real_clinicdb(real_data: Path, tmp_path: Path) -> None:
    report = prepare("cvc-clinicdb", real_data / "cvc-clinicdb", tmp_path / "s", strict=True)
    assert (report.groups, report.cases, report.slices) == (29, 29, 612)
    assert (report.missing, report.warnings) == ([], [])
    store = Store(tmp_path / "s")
    frames = {
        part: sum(store.entry(id).slices for id in ids)
        for part, ids in store.splits["sequences"].items()
    }
    assert frames == {"train": 345, "valid": 91, "test": 176}
    tested = [
        sum(store.entry(id).slices for id in store.splits[f"fold-{k}"]["test"]) for k in range(5)
    ]
    assert sum(tested) == 612
    assert max(tested) <= 150
    no_group_crosses(store)
    shares = []
    for id in store.ids:
        case = store.case(id)
        assert case.size == (288, 384)
        assert not case.gaps
        assert case.label is not None
        shares += [float(share) for share in case.label.mean(axis=(1, 2))]
    assert min(shares) == pytest.approx(0.003, abs=0.001)
    assert max(shares) == pytest.approx(0.49, abs=0.01)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "cases"), [("kvasir-seg", 100), ("etis-larib", 20), ("cvc-colondb", 60)]
)
def test_real_stills(real_data: Path, tmp_path: Path, name: str, cases: int) -> None:
    report = prepare(name, real_data / name, tmp_path / "s")
    assert report.cases == cases
    assert len(report.missing) == 1
    store = Store(tmp_path / "s")
    with (real_data / name / "cases.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for id in store.ids[::7]:
        case = store.case(id)
        assert case.label is not None
        assert case.size == (int(rows[id]["h"]), int(rows[id]["w"]))
        assert case.label.mean() == pytest.approx(float(rows[id]["fg"]), abs=1e-4)


def test_splits_say_where_they_come_from(clinic: Path, tmp_path: Path) -> None:
    prepare("cvc-clinicdb", clinic, tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert "not confirmed" in manifest["provenance"]["split"]
