"""Groups in every data set that reads them from outside: never stale, never half known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.datasets._groups import groups_by
from segweave.errors import InputError, UsageError
from tests.datasets.layouts import label_of, pixels, save

IDS = [f"ISIC_{n:07d}" for n in range(6)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for n, id in enumerate(IDS):
        save(tmp_path / "images" / f"{id}.png", pixels(n, (20, 24, 3)))
        save(tmp_path / "masks" / f"{id}.png", label_of((20, 24)))
    return tmp_path


def written(path: Path, rows: list[str], head: str = "case,group") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def listed(folder: Path, groups: list[str], head: str = "image,mask,group") -> Path:
    """A table of the photos with their groups."""
    rows = [f"images/{id}.png,masks/{id}.png,{g}" for id, g in zip(IDS, groups, strict=True)]
    return written(folder / "table.csv", rows, head)


def _folder(photos: Path, groups: list[str]) -> dict[str, Any]:
    rows = [f"{id},{group}" for id, group in zip(IDS, groups, strict=True)]
    table = written(photos / "groups.csv", rows)
    return {"name": "folder", "source": photos / "images", "masks": photos / "masks",
            "cases": table}  # fmt: skip


def _set(name: str) -> Callable[[Path, list[str]], dict[str, Any]]:
    def options(photos: Path, groups: list[str]) -> dict[str, Any]:
        return {"name": name, "source": photos, "groups": _folder(photos, groups)["cases"]}

    return options


def _table(photos: Path, groups: list[str]) -> dict[str, Any]:
    return {"name": "table", "source": listed(photos, groups)}


@pytest.mark.parametrize("options", [_folder, _table, _set("isic2018"), _set("kvasir-seg")])
def test_a_conversion_continues_with_the_groups_of_now(
    photos: Path, options: Callable[[Path, list[str]], dict[str, Any]]
) -> None:
    def stop(done: int, total: int, case: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(out=photos / "s", progress=stop, **options(photos, [*"abcdef"]))
    report = prepare(out=photos / "s", **options(photos, [*"aaccef"]))
    assert list(Store(photos / "s").groups.values()) == [*"aaccef"]
    assert report.resumed == 2, "what has not changed is kept"


def test_rows_that_contradict_each_other_are_refused(photos: Path) -> None:
    source = {"source": photos / "images", "masks": photos / "masks"}
    rows = [f"{id},g{n}" for n, id in enumerate(IDS)]
    table = written(photos / "c.csv", [*rows, "", f"{IDS[2]}.png,g2", ","])
    assert prepare("folder", out=photos / "s", cases=table, **source).groups == 6
    written(table, [*rows, f"{IDS[2]},other"])
    with pytest.raises(InputError, match=rf"line 8 .*{IDS[2]}"):
        prepare("folder", out=photos / "t", cases=table, **source)
    with pytest.raises(InputError, match="one row for each case"):
        prepare("isic2018", photos, photos / "t", groups=table)
    written(table, [f"g{n},{id}" for n, id in enumerate(IDS)] + ["g9"], "group,case")
    with pytest.raises(InputError, match="none in line 8"):
        prepare("folder", out=photos / "t", cases=table, **source)


def test_a_column_of_groups_is_full_or_empty(photos: Path) -> None:
    for options in (_folder, _table):
        with pytest.raises(InputError, match=f"none for 2 of 6 cases: {IDS[1]}, {IDS[4]}"):
            prepare(out=photos / "s", **options(photos, ["a", "", "a", "b", "", "b"]))
        prepare(out=photos / f"s{options.__name__}", **options(photos, [""] * 6))
        assert not Store(photos / f"s{options.__name__}").grouped


def test_nnunet_names_the_cases_without_a_group(tmp_path: Path) -> None:
    for n, id in enumerate("abc"):
        save(tmp_path / "imagesTr" / f"{id}_0000.png", pixels(n, (20, 24)))
        save(tmp_path / "labelsTr" / f"{id}.png", label_of((20, 24)))
    about = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "x": 1},
             "numTraining": 3, "file_ending": ".png"}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    rows = ["a,a,p,", "b,b,p,", "c,c,,"]
    written(tmp_path / "cases.csv", rows, "case,id,group,part")
    report = prepare("nnunet", tmp_path, tmp_path / "s")
    assert "cases.csv names no group of c: each is its own" in report.warnings
    store = Store(tmp_path / "s")
    assert not store.grouped
    assert store.groups == {"a": "p", "b": "p", "c": "c"}
    written(tmp_path / "cases.csv", [*rows, "a,a,q,"], "case,id,group,part")
    with pytest.raises(InputError, match="one row for each case"):
        prepare("nnunet", tmp_path, tmp_path / "t")


def test_brackets_that_take_no_part_are_passed_over(photos: Path) -> None:
    assert groups_by(["p1", "p5"], "^p(?:([12])|([345]))$", "x") == {"p1": "1", "p5": "5"}
    assert groups_by(["p1"], r"(x)?\d", "x") == {"p1": "1"}
    for nothing in ("x*", "p(q*)", "z"):
        with pytest.raises(UsageError, match="finds a group"):
            groups_by(["p1"], nothing, "x")
    source = {"source": photos / "images", "masks": photos / "masks"}
    prepare("folder", out=photos / "s", group="(x)?[0-9]$", **source)
    store = Store(photos / "s")
    assert store.groups[IDS[3]] == "3"
    assert sum(map(len, store.splits["seed-0"].values())) == 6
