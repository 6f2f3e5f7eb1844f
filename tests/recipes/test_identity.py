"""The digest of an arm: equal for runs of one arm, different for anything that could matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from segweave.recipes import (
    Recipe,
    arm_digest,
    arm_identity,
    dotted_differences,
    list_recipes,
    load_recipe,
)
from segweave.recipes.recipe import TrainingChoice

FORMAT_1 = Path(__file__).parent / "format-1.yaml"


@pytest.mark.parametrize(
    "change",
    [
        "seed=3",
        "fold=2",
        "arm=another label",
        "data.store=somewhere/else",
        "data.store=[a, b]",
        "weaving.at=skips",  # without a context module it has no meaning
        "network.options.width=8.0",  # the value that the recipe has
        "training.gradient_clip=null",  # the default
    ],
)
def test_runs_of_one_arm_have_one_digest(change: str) -> None:
    assert arm_digest(load_recipe("demo", [change])) == arm_digest(load_recipe("demo"))


@pytest.mark.parametrize(
    "changes",
    [
        ["context.name=mean"],
        ["context.name=mean", "weaving.at=skips"],
        ["input.slices=3"],
        ["network.options.width=9"],
        ["network.options.levels=4"],
        ["network.name=mt-unet"],
        ["network.pretrained=imagenet"],
        ["training.epochs=13"],
        ["training.steps=12"],
        ["training.precision=bf16"],
        ["training.loss=[{name: dice}]"],
        ["training.augmentation.rotation=29"],
        ["data.split=other"],
        ["protocol=published"],
    ],
)
def test_any_other_setting_makes_another_arm(changes: list[str]) -> None:
    digests = {arm_digest(load_recipe("demo", sets)) for sets in ([], changes)}
    assert len(digests) == 2


def test_shipped_recipes_are_different_arms() -> None:
    digests = [arm_digest(load_recipe(name)) for name in list_recipes()]
    assert len(set(digests)) == len(digests)


@given(st.integers(0, 2**31), st.integers(0, 9), st.text(max_size=5))
def test_seed_fold_and_label_never_count(seed: int, fold: int, arm: str) -> None:
    recipe = load_recipe(FORMAT_1)
    other = Recipe.model_validate(recipe.to_dict() | {"seed": seed, "fold": fold, "arm": arm})
    assert arm_identity(other) == arm_identity(recipe)


# These digests are in evaluation folders. A field that is added with its default must not change
# them. A default that changes needs a new format of recipes.
def test_digests_of_earlier_versions_still_hold() -> None:
    assert arm_digest(load_recipe(FORMAT_1)) == FORMAT_1_DIGEST
    assert arm_digest(load_recipe("demo"), data="0" * 64) == DEMO_DIGEST


FORMAT_1_DIGEST = "e428880e39651378432369a5fb6cd0ece9bfdefa84542fff2efe0c25e2b20606"
DEMO_DIGEST = "1f923cf460df775ee541786320fc9f777f0c29bca911aad77f0b1b6069a4eab0"


def test_a_field_that_is_added_with_its_default_changes_no_digest() -> None:
    class LaterTraining(TrainingChoice):
        moving_average: float | None = None
        stages: tuple[int, ...] = Field(default_factory=lambda: (1, 2))

    class LaterRecipe(Recipe):
        training: LaterTraining
        notes: ClassVar[str] = ""
        extra: dict[str, Any] = Field(default_factory=dict)

    recipe = load_recipe(FORMAT_1)
    later = LaterRecipe.model_validate(recipe.to_dict())
    assert arm_digest(later) == arm_digest(recipe)
    values = recipe.to_dict()
    values["training"]["moving_average"] = 0.5
    assert arm_digest(LaterRecipe.model_validate(values)) != arm_digest(recipe)


def test_data_counts_by_its_content() -> None:
    recipe = load_recipe("demo")
    assert arm_digest(recipe, data="a") != arm_digest(recipe, data="b")
    assert arm_identity(recipe, data="a").recipe["data"]["store"] == "a"


def test_a_file_of_weights_counts_by_its_content(tmp_path: Path) -> None:
    def digest(name: str, content: bytes, prefix: str = "") -> str:
        file = tmp_path / name
        file.write_bytes(content)
        recipe = load_recipe("demo", [f"network.pretrained={prefix}{file}"])
        assert str(tmp_path) not in json.dumps(arm_identity(recipe).recipe)
        return arm_digest(recipe)

    assert digest("a", b"1") == digest("b", b"1") != digest("c", b"2")
    assert digest("a", b"1", prefix="imagenet:") != digest("a", b"1")


def test_the_recipe_of_an_identity_is_complete_and_names_no_folder() -> None:
    one = arm_identity(load_recipe("demo", ["data.store=/home/someone/store"]), data="sum")
    assert "/home" not in json.dumps(one.recipe)
    assert one.recipe["training"]["optimiser"]["betas"] == [0.9, 0.999]
    assert not {"seed", "fold", "arm", "format"} & set(one.recipe)
    two = arm_identity(load_recipe("demo", ["context.name=mean", "input.slices=3"]), data="sum")
    assert set(dotted_differences(one.recipe, two.recipe)) == {"context", "weaving", "input.slices"}
