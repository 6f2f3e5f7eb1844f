"""Labels of arms and what `--context`, `--at`, `--slices` and `--network` change in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from segweave.errors import UsageError
from segweave.recipes import ContextSetting, Recipe, load_recipe, network_changes

PUBLISHED = "acdc-mt-unet-sa-lstm-published"


def changed(name: str, *sets: str, **setting: object) -> Recipe:
    base = load_recipe(name)
    return load_recipe(name, [*ContextSetting(**setting).changes(base), *sets])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sets", "arm"),
    [
        ([], "unet"),
        (["context.name=sa-lstm"], "unet+sa-lstm"),
        (["context.name=sa-lstm", "weaving.at=skips"], "unet+sa-lstm@skips"),
        (["context.name=conv", "weaving.at=bottleneck"], "unet+conv"),
        (["weaving.at=skips"], "unet"),
        (["network.name=mt-unet"], "mt-unet"),
        (["arm=mine"], "mine"),
        (["arm=mine", "context.name=sa-lstm"], "mine"),
        (["seed=3", "training.epochs=2"], "unet"),
    ],
)
def test_the_label_is_derived_unless_one_is_given(sets: list[str], arm: str) -> None:
    assert load_recipe("acdc-unet-128", sets).arm == arm


@pytest.mark.parametrize(
    ("text", "sets", "arm"),
    [
        ("", [], "wide"),
        ("", ["training.epochs=2", "input.slices=3"], "wide"),
        ("", ["context.name=mean"], "unet+mean"),
        ("", ["network.options.width=3"], "unet"),
        ("", ["context.name=mean", "arm=wide, mean"], "wide, mean"),
        ("context: {name: conv}\n", [], "unet+conv"),
        ("context: {name: conv}\narm: seen\n", [], "seen"),
        ("training: {epochs: 3}\n", [], "wide"),
    ],
)
def test_a_label_does_not_outlive_a_change_of_what_it_names(
    tmp_path: Path, text: str, sets: list[str], arm: str
) -> None:
    (tmp_path / "base.yaml").write_text("extends: acdc-unet-128\narm: wide\n")
    (tmp_path / "mine.yaml").write_text(f"extends: base.yaml\n{text}")
    assert load_recipe(tmp_path / "mine.yaml", sets).arm == arm


def test_a_context_module_reads_three_slices_unless_the_recipe_has_more() -> None:
    recipe = changed("acdc-unet-128", context="sa-lstm", at="skips")
    assert recipe.context is not None
    assert (recipe.context.name, recipe.context.form) == ("sa-lstm", "paper")
    assert (recipe.weaving.at, recipe.slices) == ("skips", 3)
    assert changed("acdc-unet-128", context="sa-lstm", slices=5).slices == 5
    tiled = changed("isic2018-unet-128", context="conv", tiles=2)
    assert (tiled.slices, tiled.weaving.tiles) == (1, 2)
    wide = load_recipe("acdc-unet-128", ["input.slices=5"])
    assert not any("slices" in text for text in ContextSetting(context="conv").changes(wide))


def test_the_user_has_the_last_word() -> None:
    assert changed("demo", "input.slices=7", context="mean").slices == 7


def test_another_module_drops_form_and_options_of_the_old_one() -> None:
    recipe = changed(PUBLISHED, context="conv")
    assert recipe.context is not None
    assert (recipe.context.form, recipe.context.options) == ("paper", {})
    assert (recipe.weaving.at, recipe.weaving.join) == ("output", "replace")
    assert recipe.arm == "mt-unet+conv@output"
    same = changed(PUBLISHED, at="decoder")
    assert same.context is not None
    assert (same.context.form, same.weaving.at) == ("released", "decoder")
    assert same.context.options["kernel_size"] == 5


def test_none_is_the_network_alone() -> None:
    recipe = changed(PUBLISHED, context="none")
    assert (recipe.context, recipe.slices) == (None, 1)
    assert changed("demo", context="none") == load_recipe("demo")
    assert changed("demo", slices=3).slices == 3
    with pytest.raises(UsageError, match="without one"):
        changed("demo", at="skips")
    with pytest.raises(UsageError, match="without one"):
        changed("demo", context="none", tiles=2)


def test_another_network_drops_what_belongs_to_the_old_one() -> None:
    base = load_recipe("demo", ["network.pretrained=weights.pth"])
    recipe = load_recipe("demo", network_changes(base, "mt-unet"))
    assert recipe.network.model_dump() == {
        "name": "mt-unet",
        "form": "released",
        "options": {},
        "pretrained": None,
        "new_head": False,
    }
    assert network_changes(base, "unet") == []
