"""Test cases are scored once under a protocol, whatever the variant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import segweave
from segweave.errors import InputError, UsageError
from segweave.evaluation import summary_table
from segweave.prediction import Tiles
from segweave.runs.run_folder import Run
from tests.small import files_of


def test_test_cases_are_scored_once_under_each_protocol(run: Run, tmp_path: Path) -> None:
    segweave.evaluate(run, device="cpu")
    before = files_of(run.folder)
    for out in (None, tmp_path / "elsewhere"):
        with pytest.raises(UsageError, match="a second time") as caught:
            segweave.evaluate(run, out=out, device="cpu")
        assert "part validation" in str(caught.value)
    assert files_of(run.folder) == before
    assert not (tmp_path / "elsewhere").exists()
    segweave.evaluate(run, protocol="published", device="cpu")
    segweave.evaluate(run, force=True, device="cpu")
    ledger = json.loads((run.folder / "evaluation" / "tested.json").read_text())
    assert ledger["clean"]["times"] == 2
    assert ledger["published"]["times"] == 1


def test_no_variant_is_scored_on_test_cases_after_another(made: Path, run: Run) -> None:
    first = segweave.evaluate(run, device="cpu")
    assert first.manifest.tested == {"clean": 1}
    assert not any("more than once" in note for note in summary_table([first]).notes)
    variants: list[dict[str, Any]] = [{"checkpoint": "last"}, {"flips": "both"}, {"tiles": Tiles()}]
    for variant in [*variants, {"members": [made / "run"]}]:
        with pytest.raises(UsageError, match=r"scores \(clean\)") as caught:
            segweave.evaluate(run, device="cpu", **variant)
        assert "--part validation" in str(caught.value)
    forced = segweave.evaluate(run, flips="both", force=True, device="cpu")
    assert forced.manifest.tested == {"clean": 1, "clean-flips-both": 1}
    (note,) = (note for note in summary_table([forced]).notes if "more than once" in note)
    assert "unet+mean-flips-both, seed 0: 2 times (clean 1×, clean-flips-both 1×)" in note


def test_an_average_counts_for_each_of_its_runs(made: Path, run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(made / "run", tmp_path / "other"))
    segweave.evaluate(run, members=[other], device="cpu")
    for again in (run, other):
        with pytest.raises(UsageError, match="a second time"):
            segweave.evaluate(again, device="cpu")


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("clean", "clean"), ("clean-mean-of-2", "clean"), ("published-flips-both", "published")],
)
def test_older_ledgers_are_understood(run: Run, name: str, protocol: str) -> None:
    entry = {"when": "2026-01-01T00:00:00+00:00", "folder": "x", "times": 2}
    (run.folder / "evaluation").mkdir()
    (run.folder / "evaluation" / "tested.json").write_text(json.dumps({name: entry}))
    with pytest.raises(UsageError, match="a second time"):
        segweave.evaluate(run, protocol=protocol, device="cpu")
    found = segweave.evaluate(run, protocol=protocol, force=True, device="cpu")
    assert sum(found.manifest.tested.values()) == 3
    assert found.manifest.tested[name] >= 2


def test_the_checkpoint_chosen_on_test_cases_is_counted_separately(run: Run) -> None:
    entry = {"when": "2026-01-01T00:00:00+00:00", "folder": "x", "times": 1}
    (run.folder / "evaluation").mkdir()
    ledger = run.folder / "evaluation" / "tested.json"
    ledger.write_text(json.dumps({"published-best-on-test": entry}))
    found = segweave.evaluate(run, protocol="published", device="cpu")
    assert found.manifest.tested == {"published": 1}


def test_a_ledger_of_another_kind_is_refused(run: Run) -> None:
    (run.folder / "evaluation").mkdir()
    (run.folder / "evaluation" / "tested.json").write_text('["clean"]')
    with pytest.raises(InputError, match=r"tested\.json"):
        segweave.evaluate(run, device="cpu")


def test_only_an_evaluation_of_the_run_itself_is_replaced(
    made: Path, run: Run, tmp_path: Path
) -> None:
    other = Run(shutil.copytree(made / "run", tmp_path / "other"))
    foreign, tested, alien = (tmp_path / name for name in ("foreign", "tested", "alien"))
    segweave.evaluate(other, part="validation", out=foreign, device="cpu")
    segweave.evaluate(run, out=tested, device="cpu")
    alien.mkdir()
    (alien / "manifest.json").write_text("{}")
    # The evaluation of another model, at the path of this run's.
    moved = shutil.copytree(foreign, run.folder / "evaluation" / "clean-validation")
    content = json.loads((moved / "manifest.json").read_text())
    content["sources"]["model"] = "0" * 64
    (moved / "manifest.json").write_text(json.dumps(content))
    for folder in (foreign, tested, alien, moved):
        before = files_of(folder)
        with pytest.raises(UsageError, match="an empty or a new folder"):
            segweave.evaluate(run, part="validation", out=folder, device="cpu")
        assert files_of(folder) == before
