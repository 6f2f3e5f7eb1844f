"""Evaluations are joined by the digest of their recipe; two recipes under one name are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segweave.comparison import as_csv, compare
from segweave.errors import InputError, UsageError
from segweave.evaluation import Evaluation
from segweave.recipes import arm_identity, load_recipe
from tests.comparison.made import arms, evaluation, level, shifted


def of_recipe(folder: Path, dice: Any, *sets: str) -> Evaluation:
    """The evaluation of a run of the recipe `demo` with `sets`, as `evaluate RUN` writes it."""
    recipe = load_recipe("demo", sets)
    identity = arm_identity(recipe, data="checksum of the store")
    return evaluation(
        folder / f"{recipe.arm}-{recipe.seed}-{len(list(folder.iterdir()))}",
        recipe.arm,
        dice,
        seed=recipe.seed,
        recipe_digest=identity.digest,
        recipe=identity.recipe,
    )


def test_two_recipes_under_one_name_are_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    given = [
        of_recipe(tmp_path, level),
        of_recipe(tmp_path, level, "context.name=mean", "input.slices=3", "arm=unet", "seed=1"),
        of_recipe(tmp_path, shifted(0.1), "context.name=conv"),
    ]
    with pytest.raises(UsageError, match="two recipes under one name") as caught:
        compare(given, "unet")
    message = str(caught.value)
    assert "'unet'" in message
    assert "context: None and 'mean'" in message
    assert "input.slices: 1 and 3" in message
    assert "training" not in message.split("differ in")[1].split("what to do")[0]


def test_overrides_without_a_label_make_two_arms(tmp_path: Path) -> None:
    given = [
        of_recipe(tmp_path, level),
        of_recipe(tmp_path, shifted(0.1), "context.name=mean", "input.slices=3", "seed=1"),
    ]
    found = compare(given, "unet")
    assert [facts.arm for facts in found.facts] == ["unet", "unet+mean"]
    assert [facts.seeds for facts in found.facts] == [[0], [1]]


def test_equal_recipes_under_two_names_are_one_arm(tmp_path: Path) -> None:
    given = [
        of_recipe(tmp_path, level, "arm=mine"),
        of_recipe(tmp_path, level, "seed=1"),
        of_recipe(tmp_path, shifted(0.1), "context.name=mean"),
    ]
    found = compare(given, "unet")
    assert found.reference == "mine"
    assert found.facts[0].seeds == [0, 1]
    assert [place.seed for place in found.scored_runs if place.arm == "mine"] == [0, 1]
    assert any("mine and unet have equal recipes" in note for note in found.notes)
    assert "mine" in as_csv(found)
    doubled = of_recipe(tmp_path, level, "arm=third")
    with pytest.raises(InputError, match="mine and third and unet have equal recipes"):
        compare([*given, doubled], "unet")


def test_evaluations_without_a_digest_are_joined_by_name(tmp_path: Path) -> None:
    given = [
        evaluation(tmp_path / "old", "unet", level, seed=5),
        of_recipe(tmp_path, level),
        evaluation(tmp_path / "other tool", "theirs", shifted(0.1), seed=0),
        evaluation(tmp_path / "other tool again", "theirs", shifted(0.1), seed=5),
    ]
    found = compare(given, "unet")
    assert [(facts.arm, facts.seeds) for facts in found.facts] == [
        ("unet", [0, 5]),
        ("theirs", [0, 5]),
    ]


def test_other_data_is_another_arm(tmp_path: Path) -> None:
    one = of_recipe(tmp_path, level)
    identity = arm_identity(load_recipe("demo"), data="another checksum")
    two = evaluation(
        tmp_path / "two",
        "unet",
        level,
        seed=1,
        recipe_digest=identity.digest,
        recipe=identity.recipe,
    )
    with pytest.raises(UsageError, match=r"data.store: 'checksum of the store' and 'another"):
        compare([one, two, of_recipe(tmp_path, level, "context.name=mean")], "unet")


def test_the_control_is_known_by_its_recipe(tmp_path: Path) -> None:
    given = [
        of_recipe(tmp_path, level),
        of_recipe(tmp_path, shifted(0.05), "context.name=mean"),
        of_recipe(tmp_path, shifted(0.1), "context.name=conv", "arm=neighbours"),
    ]
    assert any("--reference neighbours" in note for note in compare(given, "unet").notes)
    assert not any("A gain" in note for note in compare(given, "neighbours").notes)


@pytest.mark.parametrize(
    ("name", "sources", "control"),
    [
        ("unet+conv", {"store": "a checksum"}, True),
        ("acdc-unet-128-conv", {"store": "a checksum"}, True),
        ("unet+conv@skips", {"store": "a checksum"}, True),
        ("unet+convnext", {"store": "a checksum"}, False),
        ("unet+conv", {"predictions": "theirs"}, False),
        ("conv", {}, False),
    ],
)
def test_without_a_recipe_the_name_of_a_run_tells_the_control(
    tmp_path: Path, name: str, sources: dict[str, str], control: bool
) -> None:
    dice = {"unet": level, name: shifted(0.01), "other": shifted(0.02)}
    notes = " ".join(compare(arms(tmp_path, dice, sources=sources), "unet").notes)
    assert (f"A gain that {name} shows too" in notes) == control
