"""Messages about folders of images name what to do; parts may have their usual names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.cli import main
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import InputError
from tests.datasets.test_folder import _pairs


def test_the_command_in_a_message_lists_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = tmp_path / "my images", tmp_path / "masks"
    _pairs(tmp_path, {f"m{k}": np.zeros((6 + k % 2, 8), np.uint8) for k in range(4)})
    (tmp_path / "images").rename(images)
    with pytest.raises(InputError) as caught:
        prepare("folder", images, tmp_path / "s", masks=masks, classes=["a", "b"], seed=0)
    command = str(caught.value).partition("segweave check")[2].partition(" lists every")[0]
    assert "--option classes=a,b" in command
    assert "seed" not in command  # as it is without being given
    with pytest.raises(SystemExit):
        main(["check", *shlex.split(command), "--json"])
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [Path(p["file"]).stem for p in problems if p["kind"] == "size"] == ["m1_mask", "m3_mask"]


@pytest.mark.parametrize("words", [("training", "val", "testing"), ("Train", "VALIDATION", "test")])
def test_parts_have_their_usual_names_too(tmp_path: Path, words: tuple[str, ...]) -> None:
    label = np.zeros((6, 8), np.uint8)
    _pairs(tmp_path, {f"m{k}": label + k for k in range(3)})
    rows = "".join(f"m{k},p{k},{word}\n" for k, word in enumerate(words))
    (tmp_path / "cases.csv").write_text(f"case,group,part\n{rows}")
    options = {"masks": tmp_path / "masks", "cases": tmp_path / "cases.csv"}
    prepare("folder", tmp_path / "images", tmp_path / "s", **options)
    given = {"train": ["m0"], "valid": ["m1"], "test": ["m2"]}
    assert Store(tmp_path / "s").splits["given"] == given
    rows = "".join(
        f"images/m{k}.png,masks/m{k}_mask.png,p{k},{word}\n" for k, word in enumerate(words)
    )
    (tmp_path / "table.csv").write_text(f"image,mask,group,part\n{rows}")
    prepare("table", tmp_path / "table.csv", tmp_path / "t")
    assert Store(tmp_path / "t").splits["given"] == given


def test_check_prints_what_to_do_beside_the_files_that_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.zeros((6, 8), np.uint8)
    label[2:4, 3:6] = 1
    _pairs(tmp_path, {"m0": label, "m1": np.stack([label * 90, label, label], -1), "m2": label})
    path = tmp_path / "masks" / "m2_mask.png"
    Image.fromarray(label * 255).save(path.with_suffix(".tif"), tiffinfo={262: 0})
    path.unlink()
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["check", "images", "--as", "folder", "-q", "--option", "masks=masks"])
    rows = [row for row in capsys.readouterr().out.splitlines() if "labels (error)" in row]
    assert len(rows) == 2
    for row in rows:
        assert ("m1_mask" in row) == ("map each colour" in row)
        assert ("m2_mask" in row) == ("save it as PNG" in row)
