"""Names of averages and checkpoints, and where their label maps are kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import segweave
from segweave.runs.run_folder import Run
from tests.small import files_of


def test_each_evaluation_has_separate_label_maps(made: Path, run: Run, tmp_path: Path) -> None:
    runs = {name: Run(shutil.copytree(run.folder, tmp_path / name)) for name in ("b", "c")}
    for number, one in enumerate(runs.values()):
        _disturb(one, number)
    options: dict[str, Any] = {"part": "validation", "device": "cpu"}
    own = segweave.evaluate(run, members=[runs["b"]], **options)
    kept = Path(own.manifest.sources["predictions"])
    assert kept == run.folder / "predictions" / own.folder.name
    before = files_of(kept)
    assert before
    # The other average has another name, here and elsewhere.
    other = segweave.evaluate(run, members=[runs["c"]], **options)
    assert other.folder != own.folder
    assert {row.arm for row in other.rows} == {"unet+mean-mean-of-2-seeds-0-0"}
    away = segweave.evaluate(run, members=[runs["b"]], out=tmp_path / "away", **options)
    places = {evaluation.manifest.sources["predictions"] for evaluation in (own, other, away)}
    assert len(places) == 3
    assert all(any(Path(place).iterdir()) for place in places)
    assert files_of(kept) == before
    # The order of the members does not matter, nor their paths.
    shutil.copytree(runs["b"].folder, tmp_path / "d")
    again = segweave.evaluate(tmp_path / "d", members=[run], **options)
    assert again.folder.name == own.folder.name


def _disturb(run: Run, number: int) -> None:
    """Make another model of the run: one bias moved, by `number`."""
    from safetensors.torch import load_file, save_file

    file = run.model / "weights.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if name.endswith("bias"))
    weights[name] = weights[name] + 0.1 * (number + 1)
    save_file(weights, file)
    card = {**run.model_card, "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (run.model / "card.json").write_text(json.dumps(card))


def test_a_checkpoint_by_name_is_another_arm(run: Run) -> None:
    found = segweave.evaluate(run, part="validation", checkpoint="last", device="cpu")
    assert {row.arm for row in found.rows} == {"unet+mean-last"}
    assert found.folder.name == "clean-validation-last"
