"""A data set in one file of the user's: checked, converted and trained on by the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segweave.cli import main
from segweave.data.store import Store

PLUGIN = '''
"""Discs, bright discs on a dark ground."""

from functools import partial
from pathlib import Path

from segweave.data.specs import TargetSpec
from segweave.datasets.base import Item, Plan
from segweave.errors import InputError
from segweave.formats import read_case
from segweave.registry import DatasetCard

CARD = DatasetCard(
    name="discs",
    title="Discs, bright discs on a dark ground",
    entry="plan",
    stack="single",
    kind="binary",
    classes=("background", "disc"),
    expected={"cases": 7},
    ranges={"size": (32, 32)},
    examples=(("segweave prepare discs DISCS stores/discs", "all of it"),),
)


def plan(source: Path, *, valid: int = 1) -> Plan:
    """Find pictures disc_N.png, each with truth_N.png.

    Args:
        source: The folder of the pictures.
        valid: How many of the pictures are for validation.
    """
    images = sorted(source.glob("disc_*.png"))
    if not images:
        raise InputError("looking for discs", file=source, expected="disc_N.png", found="none")
    items = []
    for image in images:
        mask = image.with_name(image.name.replace("disc", "truth"))
        items.append(Item(image.stem, (image, mask), partial(read_case, image, label=mask)))
    ids = [item.id for item in items]
    split = {"train": ids[valid + 2:], "valid": ids[:valid], "test": ids[valid:valid + 2]}
    target = TargetSpec(kind="binary", names=CARD.classes)
    return Plan("pictures", target, items, splits=lambda groups: {"given": split})
'''


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    rows, columns = np.mgrid[:32, :32]
    for n in range(6):
        mask = (rows - 12 - n) ** 2 + (columns - 15) ** 2 < 40
        Image.fromarray(np.where(mask, 200, 20 + n).astype(np.uint8)).save(folder / f"disc_{n}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"truth_{n}.png")
    return folder


def _run(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code in ((code, None) if code == 0 else (code,))


def _plain(text: str) -> str:
    """What the command printed, without the lines of tables and their breaks."""
    return " ".join(text.replace("│", " ").split())


def test_a_data_set_of_one_file_is_used_by_every_command(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "set_of_discs.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    with_it = ("--plugin", plugin)
    _run(*with_it, "prepare", "discs", "--help")
    shown = capsys.readouterr().out
    for words in (
        "each with truth_N.png",
        "How many of the pictures",
        "segweave prepare discs",
        "background, disc",
    ):
        assert words in _plain(shown)
    _run(*with_it, "check", discs, "-q")
    shown = _plain(capsys.readouterr().out)
    assert "read as discs (pictures)" in shown
    # Of seven cases on the card six are there: known before anything is converted.
    assert "7 cases are expected, 6 are there" in shown
    _run(*with_it, "check", discs, "-q", "--as", "discs", "--option", "valid=2", "--strict", code=2)
    _run(*with_it, "prepare", "discs", discs, tmp_path / "store", "--strict", "-q", code=2)
    _run(*with_it, "prepare", "discs", discs, tmp_path / "store", "--valid", 2, "-q")
    store = Store(tmp_path / "store")
    assert {part: len(ids) for part, ids in store.splits["given"].items()} == {
        "train": 2, "valid": 2, "test": 2
    }  # fmt: skip
    assert store.target.names == ("background", "disc")
    # Whoever trains needs the store, not the plug-in.
    sets = (
        "training.epochs=1",
        "network.options.width=2",
        "input.size=[32,32]",
        "data.split=given",
    )
    options = [part for one in sets for part in ("--set", one)]
    _run("train", "demo", "--store", tmp_path / "store", "--out", tmp_path / "run", *options)
    assert (tmp_path / "run" / "model" / "card.json").is_file()
