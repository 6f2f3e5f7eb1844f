"""Training on two stores and scoring on a third; training on from a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segweave.cli import main
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import UsageError
from segweave.evaluation import read_evaluation
from segweave.phantoms.cardiac import write_cardiac
from segweave.runs.run_folder import Run
from segweave.workflow.train import train
from tests.small import SETS


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three stores of synthetic hearts with the same classes."""
    folder = tmp_path_factory.mktemp("stores")
    paths = {}
    for seed, name in enumerate("abc"):
        write_cardiac(folder / f"raw-{name}", 4, seed, size=(40, 36), slices=3)
        prepare("acdc", folder / f"raw-{name}", folder / name)
        paths[name] = folder / name
    return paths


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code in (0, None)


def small(*words: object) -> list[object]:
    return [*words, *(word for text in SETS for word in ("--set", text)), "-q", "--device", "cpu"]


@pytest.fixture(scope="module")
def joined(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("joined") / "run"
    two = ["--store", stores["a"], "--store", stores["b"]]
    command(*small("train", "demo", "--context", "conv", "--at", "skips", *two, "--out", out))
    return Run(out)


def test_a_run_on_two_stores_is_scored_on_a_third(joined: Run, stores: dict[str, Path]) -> None:
    assert joined.recipe.data.store == (str(stores["a"]), str(stores["b"]))
    assert joined.recipe.arm == "unet+conv@skips"
    training = joined.environment["data"]["cases"]["training"]
    assert training == sum(len(Store(stores[n]).split("70-10-20", "train")) for n in "ab")
    command("evaluate", joined.folder, "--store", stores["c"], "--part", "all", "-q")
    folder = next((joined.folder / "evaluation").glob("*all*"))
    evaluation = read_evaluation(folder)
    assert {row.case for row in evaluation.rows} == set(Store(stores["c"]).ids)
    assert evaluation.manifest.recipe_digest == joined.identity.digest
    # Without --store it is scored on the test cases of the two.
    command("evaluate", joined.folder, "-q", "--device", "cpu")
    rows = read_evaluation(joined.folder / "evaluation" / "clean").rows
    assert len({row.case.partition("/")[0] for row in rows}) == 2


def test_stores_are_part_of_the_arm_by_content_not_by_path(
    joined: Run, stores: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "moved").symlink_to(stores["a"])
    sets = [*SETS, "context.name=conv", "input.slices=3", "weaving.at=skips"]
    both = train("demo", [stores["b"], tmp_path / "moved"], tmp_path / "both", sets=sets)
    assert both.identity.digest == joined.identity.digest
    one = train("demo", stores["a"], tmp_path / "one", sets=sets)
    assert one.identity.digest != joined.identity.digest
    with pytest.raises(UsageError, match="twice"):
        train("demo", [stores["a"], stores["a"]], tmp_path / "twice", sets=sets)


def test_a_finished_run_is_trained_on_as_a_new_run(
    joined: Run, stores: dict[str, Path], tmp_path: Path
) -> None:
    on = ["--store", stores["c"], "--start-from", joined.folder]
    words = ["--context", "conv", "--at", "skips", *on, "--out", tmp_path / "more"]
    # A rate so small that the weights stay where they started.
    command(*small("train", "demo", *words, "--set", "training.optimiser.rate=1e-12"))
    more = Run(tmp_path / "more")
    assert more.recipe.network.pretrained == str(joined.folder)
    before, after = joined.weights(), more.weights()
    weights = [n for n in before if n.endswith("weight") and before[n].ndim > 1]
    assert any(name.startswith("context.") for name in weights)
    assert all(torch.allclose(before[n], after[n], atol=1e-6) for n in weights)
    other = tmp_path / "other"
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in small("train", "demo", "--network", "mt-unet", *on, "--out", other)])
    assert end.value.code == 2
    assert not other.exists()
