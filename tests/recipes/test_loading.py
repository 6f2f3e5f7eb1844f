"""Reading recipes: `extends`, `--set`, and the messages about wrong ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segweave.errors import InputError, SegweaveError, UsageError
from segweave.recipes import (
    Recipe,
    differences,
    dotted_differences,
    list_recipe_parts,
    list_recipes,
    load_recipe,
    recipe_file,
)
from segweave.recipes.loading import merge

SMALL = "network: {name: unet}\ntraining: {epochs: 2}\n"
FORMAT_1 = Path(__file__).parent / "format-1.yaml"


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_text(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def test_defaults_are_written_out_and_read_back(write) -> None:  # type: ignore[no-untyped-def]
    recipe = load_recipe(write(SMALL))
    assert recipe.arm == "unet"
    text = recipe.to_yaml()
    assert yaml.safe_load(text)["training"]["optimiser"]["betas"] == [0.9, 0.999]
    assert load_recipe(write(text, "resolved.yaml")) == recipe


def test_a_recipe_of_format_1_still_loads() -> None:
    recipe = load_recipe(FORMAT_1)
    assert recipe.network.options == {"width": 16}
    assert recipe.training.augmentation.mirror == "both"
    assert recipe.context is not None
    assert recipe.context.name == "sa-lstm"
    assert recipe.training.loss[1].name == "cross-entropy"
    written = yaml.safe_load(FORMAT_1.read_text())
    differing = dotted_differences(written, recipe.to_dict())
    # Fields that were added later have their defaults; no value has changed.
    assert all(before is None for before, _ in differing.values())
    assert recipe == Recipe.model_validate(written)


def test_extends_merges_a_list_in_order(write) -> None:  # type: ignore[no-untyped-def]
    write("training: {epochs: 3, batch_size: 2}\ninput: {slices: 3}\n", "parts/long.yaml")
    text = "extends: [data/acdc, network/unet-16, training/small-images, parts/long.yaml]\n"
    recipe = load_recipe(write(text + "training: {batch_size: 4}\n"))
    assert recipe.data.split == "70-10-20"
    assert recipe.network.options == {"width": 16}
    assert (recipe.training.epochs, recipe.training.batch_size) == (3, 4)
    assert recipe.training.validate_every == 5
    assert (recipe.input.size, recipe.slices) == ((128, 128), 3)


def test_later_names_override_earlier_ones(write) -> None:  # type: ignore[no-untyped-def]
    text = "extends: [data/acdc, data/isic2018, network/mt-unet, network/unet-16]\n"
    recipe = load_recipe(write(text + "training: {epochs: 1}\n"))
    assert recipe.data.split == "seed-0"
    assert recipe.input.colour_order == "rgb"
    assert recipe.network.name == "unet"


def test_shipped_parts_are_listed_and_are_no_recipes() -> None:
    parts = list_recipe_parts()
    assert {"data/acdc", "network/unet-16", "training/salstm-published"} <= set(parts)
    assert not set(parts) & set(list_recipes())
    for name in parts:
        assert recipe_file(name).is_file()
    with pytest.raises(UsageError, match="did you mean acdc-unet-128"):
        recipe_file("acdc-unet-12")


def test_extends_a_shipped_recipe_and_a_file(write) -> None:  # type: ignore[no-untyped-def]
    write("extends: acdc-unet-128\ntraining: {epochs: 3}\n", "base.yaml")
    child = write("extends: ../base.yaml\nnetwork: {options: {width: 4}}\n", "arms/child.yaml")
    recipe = load_recipe(child)
    assert recipe.training.epochs == 3
    assert recipe.training.batch_size == 8
    assert recipe.network.options == {"width": 4}
    assert recipe.arm == "unet"


def test_a_new_name_drops_the_options_of_the_old_one() -> None:
    recipe = load_recipe("acdc-mt-unet-sa-lstm-published", ["context.name=conv"])
    assert recipe.context is not None
    assert recipe.context.options == {}
    assert recipe.context.form == "released"
    recipe = load_recipe(
        "acdc-mt-unet-sa-lstm-published", ["context.options.kernel_size=3", "context.name=conv"]
    )
    assert recipe.context is not None
    assert recipe.context.options == {"kernel_size": 3}


def test_sets_override_any_field() -> None:
    recipe = load_recipe(
        "acdc-unet-128",
        [
            "training.epochs=10",
            "training.optimiser.rate=1e-4",
            "network.options.width=32",
            "input.size=[64, 96]",
            "data.validation=null",
            "context={name: sa-lstm}",
            "training.precision=32",
            "training.loss=[{name: dice, weight: 2}]",
        ],
    )
    assert recipe.training.epochs == 10
    assert recipe.training.optimiser.rate == 1e-4
    assert recipe.network.options["width"] == 32
    assert recipe.input.size == (64, 96)
    assert recipe.data.validation is None
    assert recipe.context is not None
    assert recipe.training.precision == "32"
    assert recipe.training.loss[0].weight == 2


def test_one_of_a_pair_takes_the_other_away(write) -> None:  # type: ignore[no-untyped-def]
    assert load_recipe("acdc-unet-128", ["training.steps=5"]).training.epochs is None
    spaced = load_recipe(write(SMALL + "input: {spacing: [1.5, 1.5]}\n"))
    assert spaced.input.size is None
    assert spaced.input.spacing == (1.5, 1.5)


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["training.epoch=3"], "unknown key 'training.epoch' (from --set training.epoch)"),
        (["training.epoch=3"], "did you mean epochs"),
        (["epochs=3"], "did you mean training.epochs?"),
        (["trainin.epochs=3"], "did you mean training?"),
        (["network.widht=3"], "options of the constructor go under network.options"),
        (["training.optimiser.ratte=3"], "did you mean rate"),
        (["training.augmentation.rotatoin=3"], "did you mean rotation"),
        (["training.loss=[{nam: dice}]"], "unknown key 'training.loss.0.nam'"),
        (["training.epochs=ten"], "a whole number"),
        (["training.epochs=0"], "training.epochs ≥ 1"),
        (["training.optimiser.rate=fast"], "a number"),
        (["training.optimiser.name=adm"], "'adam', 'adamw' or 'sgd'"),
        (["training.loss=3"], "a list"),
        (["training.loss=[]"], "a list of 1"),
        (["network=3"], "a mapping of keys to values"),
        (["context.options.x=3"], "the key 'context.name'"),
        (["input.slices=2"], "slices must be an odd number"),
        (["training.epochs=null"], "either epochs or steps"),
        (["training.checkpoint=best", "data.validation=null"], "needs validation cases"),
        (["training.deterministic=perhaps"], "true or false"),
    ],
)
def test_messages_are_in_plain_words(sets: list[str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("acdc-unet-128", sets)
    message = str(caught.value)
    assert expected in message
    assert "pydantic" not in message.lower()
    assert "input_value" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2\nb: 3", "line 2"),
        ("a: 1\na: 2\n", "given twice"),
        ("- 1\n- 2\n", "a list"),
        ("", "an empty file"),
        ("just text", "text"),
        ("!!python/object/apply:os.system [ls]", "python/object"),
        ("extends: 3\n", "extends"),
        ("extends: acdc-unet-182\n", "did you mean acdc-unet-128"),
        ("extends: nowhere/else.yaml\n", "no such file"),
        ("extends: nowhere/else\n", "no such file"),
        ("extends: [data/acdc, data/isic-2018]\n", "did you mean data/isic2018"),
        ("extends: [data/acdc, 3]\n", "or a list of them"),
        ("extends: mine.yaml\n", "without a circle"),
        ("format: 2\n" + SMALL, "another version"),
        ("network: {name: unet}\n", "training"),
        ("network: {}\ntraining: {epochs: 1}\n", "the key 'network.name'"),
        (SMALL + "seeds: 3\n", "did you mean seed"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(write, text: str, expected: str) -> None:  # type: ignore[no-untyped-def]
    path = write(text)
    with pytest.raises(SegweaveError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2
    assert expected in str(caught.value)
    if not isinstance(caught.value, UsageError):
        assert caught.value.file is not None


def test_a_circle_over_two_files_is_refused(write) -> None:  # type: ignore[no-untyped-def]
    write("extends: two.yaml\n", "one.yaml")
    two = write("extends: one.yaml\n", "two.yaml")
    with pytest.raises(InputError, match=r"two\.yaml → one\.yaml → two\.yaml"):
        load_recipe(two)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"binary\.yaml"):
        load_recipe(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="no such file"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "huge.yaml").write_text("#" * 1_000_001)
    with pytest.raises(InputError, match="a page of text"):
        load_recipe(tmp_path / "huge.yaml")
    with pytest.raises(UsageError, match="did you mean demo"):
        load_recipe("demmo")


@pytest.mark.parametrize("text", ["training.epochs", "=3", "a..b=3", "a=[1"])
def test_a_wrong_set_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_recipe("demo", [text])


def test_differences_name_the_keys() -> None:
    one = load_recipe("acdc-unet-128")
    two = load_recipe("acdc-unet-128", ["seed=4", "training.epochs=5", "network.options.levels=4"])
    assert differences(one, two) == {
        "seed": (0, 4),
        "training.epochs": (24, 5),
        "network.options.levels": (None, 4),
    }
    assert differences(one, one) == {}


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(base=mappings, over=mappings)
def test_merging_keeps_what_is_not_overridden(base: dict, over: dict) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    assert merge(base, {}) == base
    assert set(merged) == set(base) | set(over)
    for key in set(base) - set(over):
        assert merged[key] == base[key]
    for key in over:
        if not isinstance(over[key], dict):
            assert merged[key] == over[key]


def test_recipes_cannot_be_changed() -> None:
    recipe = load_recipe("demo")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]
    assert isinstance(recipe, Recipe)
    assert "demo" in list_recipes()


ODD_VALUES = (
    "2024-99-99",
    "!!int abc",
    "!!float x",
    "!!bool maybe",
    "!!timestamp foo",
    "9" * 5000,
    "&a [*a]",
    "&a {b: *a}",
    "!!set {a, [b]}",
    "!!binary '*'",
    "!!omap 3",
    "{[1]: 2}",
    "{{a: 1}: 2}",
    "!!python/object/apply:os.system [ls]",
)


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: value[:20])
@pytest.mark.parametrize("key", ["arm", "seed", "network.options.width", "data.store"])
def test_values_that_are_no_plain_ones_are_refused(write, key: str, value: str) -> None:  # type: ignore[no-untyped-def]
    *sections, last = key.split(".")
    text = "extends: demo\n"
    for depth, section in enumerate(sections):
        text += "  " * depth + f"{section}:\n"
    text += "  " * len(sections) + f"{last}: {value}\n"
    with pytest.raises(SegweaveError):
        load_recipe(write(text))
    with pytest.raises(SegweaveError):
        load_recipe("demo", [f"{key}={value}"])


def test_aliases_of_aliases_are_counted_before_they_are_used(write) -> None:  # type: ignore[no-untyped-def]
    """A few hundred bytes that stand for 10^9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    for text in ("\n".join(lines), "arm: " + "\n".join(lines).replace("a0: ", "\n  a0: ")):
        with pytest.raises(InputError, match=r"10,000 values|valid YAML"):
            load_recipe(write(text + "\n"))


def test_many_keys_are_read_in_time(write) -> None:  # type: ignore[no-untyped-def]
    text = "".join(f"k{number}: 1\n" for number in range(90_000))
    with pytest.raises(InputError, match="more than 10,000 values"):
        load_recipe(write(text))


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match=r"no ordinary file|no such file"):
        load_recipe(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    ("network", "own", "others"),
    [
        ("unet", "acdc-unet-128", "mt-unet"),
        ("mt-unet", "acdc-mt-unet", "acdc-unet"),
        ("levit-unet-384", "photos (colour pictures) or volumes", "take one of"),
    ],
)
def test_a_network_in_place_of_a_recipe(network: str, own: str, others: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_recipe(network)
    assert own in str(refused.value)
    assert f"--network {network}" in str(refused.value)
    assert others not in str(refused.value)
