"""Training on two stores and scoring on a third; training on from a finished run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segweave.cli import main
from segweave.data.joined_store import JoinedStore
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.datasets import prepare
from segweave.errors import UsageError
from segweave.evaluation import read_evaluation
from segweave.phantoms.cardiac import write_cardiac
from segweave.recipes import load_recipe
from segweave.runs.run_folder import Run
from segweave.workflow.evaluate import evaluate
from segweave.workflow.train import train, warn_of_copies
from segweave.workflow.variants import _check_other_store
from tests.data.made import TARGET, made_case
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
    # With one of the two it is scored on that one's test cases, and on no others.
    command("evaluate", joined.folder, "--store", stores["a"], "-q", "--device", "cpu")
    (folder,) = (joined.folder / "evaluation").glob("clean-on-acdc")
    expected = set(Store(stores["a"]).split("70-10-20", "test"))
    assert {row.case for row in read_evaluation(folder).rows} == expected
    with pytest.raises(UsageError, match="did not learn from"):
        evaluate(joined, store=stores["a"], part="all")


def test_cases_of_one_of_several_stores_are_known_by_its_name() -> None:
    # Its run's stores are gone, so that no content can be compared.
    data = SimpleNamespace(store=None)
    run = SimpleNamespace(
        folder=Path("run"),
        recipe=SimpleNamespace(data=data),
        training_data={"name": "one+two", "groups": ["one/p1"], "validation_groups": ["two/p2"]},
    )
    entry = SimpleNamespace(content="")
    for name, groups, learned in (("one", "p1", True), ("one", "p2", False), ("two", "p2", True)):
        store = SimpleNamespace(name=name, groups={"a": groups}, entry=lambda id: entry)
        refused = pytest.raises(UsageError) if learned else contextlib.nullcontext()
        with refused:
            _check_other_store(run, ["a"], "all", store)  # type: ignore[arg-type]


def test_the_same_image_in_training_and_test_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = []
    for name, split in (("one", {"train": ["a"], "valid": ["b"]}), ("two", {"test": ["a"]})):
        with StoreWriter(tmp_path / name, name, TARGET) as writer:
            for id in "ab" if name == "one" else "ac":
                writer.add(made_case(id))
            made.append(writer.finish({"default": split}))
    warn_of_copies(load_recipe("demo", ["data.split=default"]), JoinedStore(made))
    assert "one/a and two/a have the same image" in caplog.text
    assert "training and test" in caplog.text


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
