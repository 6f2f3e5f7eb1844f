"""The arm of a run is recorded in the run, its model card and its evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segweave.comparison import compare
from segweave.errors import UsageError
from segweave.evaluation import read_evaluation
from segweave.recipes import dotted_differences, load_recipe
from segweave.runs.run_folder import Run, identity_of
from segweave.workflow.evaluate import evaluate
from segweave.workflow.variants import Variant
from tests.small import make_run, make_store

MEAN = ("context.name=mean", "input.slices=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a bare run (seed 0), one with a module on top (seed 1), under one label and
    under a derived one, all scored.
    """
    folder = tmp_path_factory.mktemp("identity")
    make_store(folder)
    make_run(folder, name="bare")
    make_run(folder, "seed=2", name="again")
    make_run(folder, *MEAN, "seed=1", "arm=unet", name="hidden")
    make_run(folder, *MEAN, "seed=1", name="derived")
    for name in ("bare", "again", "hidden", "derived"):
        evaluate(folder / name, device="cpu")
    return folder


def test_run_card_and_manifest_have_one_digest(folder: Path) -> None:
    run = Run(folder / "bare")
    digest = run.identity.digest
    assert run.environment["arm"]["digest"] == digest
    assert run.model_card["recipe_digest"] == digest
    manifest = read_evaluation(folder / "bare" / "evaluation" / "clean").manifest
    assert manifest.recipe_digest == digest
    assert str(folder) not in json.dumps(manifest.recipe)
    assert Run(folder / "again").identity.digest == digest
    assert Run(folder / "derived").identity.digest != digest
    assert Run(folder / "hidden").identity == Run(folder / "derived").identity


def test_a_run_of_an_earlier_version_has_the_same_digest(folder: Path, tmp_path: Path) -> None:
    run = Run(folder / "bare")
    old = tmp_path / "old"
    old.mkdir()
    environment = {name: value for name, value in run.environment.items() if name != "arm"}
    (old / "environment.json").write_text(json.dumps(environment))
    (old / "recipe.yaml").write_text(run.recipe.to_yaml())
    assert Run(old).identity == run.identity


def test_two_methods_are_never_printed_as_one_arm(folder: Path) -> None:
    scores = {run.name: run / "evaluation" / "clean" for run in folder.iterdir()}
    with pytest.raises(UsageError, match=r"two recipes under one name(.|\n)*input.slices: 1 and 3"):
        compare([scores["bare"], scores["hidden"]], "unet")
    found = compare([scores["bare"], scores["again"], scores["derived"]], "unet")
    assert [(facts.arm, facts.seeds) for facts in found.facts] == [
        ("unet", [0, 2]),
        ("unet+mean", [1]),
    ]


def test_variants_of_a_run_are_arms_of_their_kind(folder: Path) -> None:
    run, other = Run(folder / "bare"), Run(folder / "again")
    plain = run.identity
    assert Variant((run,)).identity == plain
    flipped = Variant((run,), flips="both").identity
    mean = Variant((run, other)).identity
    assert len({plain.digest, flipped.digest, mean.digest}) == 3
    assert flipped.digest != Variant((run,), flips="rows").identity.digest
    assert Variant((other, run)).identity.digest == mean.digest
    assert dotted_differences(plain.recipe, flipped.recipe) == {
        "prediction": (None, {"flips": "both"})
    }


def test_a_run_that_starts_from_a_run_is_identified_by_its_arm(folder: Path) -> None:
    def digest(start: str) -> str:
        recipe = load_recipe("demo", [f"network.pretrained={folder / start}"])
        identity = identity_of(recipe, "data")
        assert str(folder) not in json.dumps(identity.recipe)
        return identity.digest

    assert digest("bare") == digest("again") != digest("derived")
    assert digest("bare/model") != digest("again/model")
