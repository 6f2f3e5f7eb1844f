"""Building the network of a recipe: every shipped one, and start values that arms share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segweave import registry
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.networks import first_inputs
from segweave.recipes import ContextSetting, list_recipes, load_recipe, recipe_file
from segweave.recipes.build import build_network
from segweave.training.objective import WeightedLoss
from segweave.weaving import WovenNetwork
from tests.recipes.test_baselines import NAMES as BASELINES

REFERENCE = Path(__file__).parent.parent / "reference" / "networks"
HEART = TargetSpec(names=("background", "right ventricle", "myocardium", "left ventricle"))


def small(name: str = "demo", **changes: object):  # type: ignore[no-untyped-def]
    sets = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    recipe = load_recipe(name, ["network.options.width=2", "network.options.levels=2", *sets])
    return build_network(recipe, 1, HEART)


LARGE = ("danie-s", "danie-l", "bsanet")
CONTEXTS = ("sa-lstm", "lstm-sa", "sa-embedded-lstm", "conv")


# The papers' baselines at full size take minutes; see test_baselines.py.
FULL_SIZE = [name for name in list_recipes() if name not in BASELINES]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_every_shipped_recipe_builds(name: str) -> None:
    # Small where the network is too large for a test of every recipe.
    small = {"isic2018-medsam": ["network.options.layers=1", "input.size=[64,64]"]}.get(name, [])
    recipe = load_recipe(name, small)
    assert recipe.format == 1
    image = TargetSpec(kind="image", names=("CT",), unit="HU", range=(-160, 240))
    WeightedLoss(recipe.training.loss, image if name.startswith("low-dose") else HEART)
    sets = [*small]
    card = registry.networks.card(recipe.network.name)
    if recipe.network.pretrained is not None:
        # Weights from elsewhere are loaded in tests/networks/test_pretrained.py.
        assert card.weights
        sets.append("network.pretrained=null")
    if recipe.network.name in LARGE:
        # The default options have a hundred million parameters.
        sets.append(f"network.options={json.dumps(card.tiny_options)}")
    built = load_recipe(name, sets)
    network = build_network(built, len(recipe.input.channels), HEART)
    assert network.classes == 4
    assert network.slices == recipe.slices
    assert (recipe.context is None) == network.is_bare
    assert load_recipe(recipe_file(name), small) == recipe
    if not name.startswith("acdc-mt"):
        size = recipe.input.size
        assert size is not None
        window = torch.zeros(1, recipe.slices, len(recipe.input.channels), *size)
        given = first_inputs(network.network, window[:, 0])
        windows = {key: value[:, None] for key, value in given.items()}
        assert network(window, **windows).logits.shape == (1, 4, *size)


@pytest.mark.parametrize("context", CONTEXTS)
def test_each_module_can_be_woven_into_a_shipped_recipe(context: str) -> None:
    base = load_recipe("acdc-unet-128")
    recipe = load_recipe("acdc-unet-128", ContextSetting(context=context).changes(base))
    assert (recipe.arm, recipe.slices) == (f"unet+{context}", 3)
    network = build_network(recipe, 1, HEART)
    assert network(torch.zeros(1, 3, 1, 32, 32)).logits.shape == (1, 4, 32, 32)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("acdc-mt-unet-sa-lstm-published", "released-salstm-whole"),
        ("acdc-mt-unet-lstm-sa-published", "released-lstm-sa-whole"),
        ("acdc-mt-unet-sa-embedded-lstm-published", "released-sa-embedded-lstm-whole"),
    ],
)
def test_the_whole_models_have_the_tensors_of_the_released_files(name: str, file: str) -> None:
    spec = json.loads((REFERENCE / f"{file}.json").read_text())
    network = build_network(load_recipe(name), 1, HEART)
    released = network.released_names()
    shapes = {n: tuple(shape) for n, shape in spec["state_dict"]}
    assert set(released.tensors.values()) | set(released.dead) >= set(shapes)
    own = network.state_dict()
    for ours, theirs in released.tensors.items():
        assert tuple(own[ours].shape) == shapes[theirs]


def test_arms_with_one_seed_share_the_networks_start_values() -> None:
    plain = small().state_dict()
    arms = [
        small(context="{name: conv}", input__slices=3),
        small(context="{name: sa-lstm}", input__slices=3),
        small(context="{name: sa-lstm}", input__slices=3, weaving__at="skips"),
    ]
    for arm in arms:
        own = arm.state_dict()
        assert set(plain) < set(own)
        assert all(torch.equal(plain[name], own[name]) for name in plain)
    again = small(context="{name: sa-lstm}", input__slices=3).state_dict()
    assert all(torch.equal(again[name], value) for name, value in arms[1].state_dict().items())


def test_seeds_differ_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = small(seed=0, context="{name: sa-lstm}").state_dict()
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())
    other = small(seed=1, context="{name: sa-lstm}").state_dict()
    for part in ("network.", "context."):
        names = [n for n in one if n.startswith(part) and n.endswith("weight") and one[n].ndim > 1]
        assert names
        assert all(not torch.equal(one[name], other[name]) for name in names)


def test_the_global_seed_does_not_matter() -> None:
    torch.manual_seed(1)
    one = small().state_dict()
    torch.manual_seed(2)
    two = small().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pretrained_weights_are_read_only_where_asked(tmp_path: Path) -> None:
    weights = {name: value + 1 for name, value in small().network.state_dict().items()}
    save_file(weights, tmp_path / "start.safetensors")
    path = str(tmp_path / "start.safetensors")
    loaded = small(network__pretrained=path).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    recipe = load_recipe("demo", ["network.pretrained=gone.safetensors"])
    build_network(recipe, 1, HEART, pretrained=False)
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        build_network(recipe, 1, HEART)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"network__name": "unnet"}, "did you mean unet"),
        ({"network__options": "{widht: 3}"}, "did you mean width"),
        ({"context": "{name: sa-lsmt}"}, "did you mean sa-lstm"),
        ({"context": "{name: sa-lstm, options: {kernal_size: 3}}"}, "did you mean kernel_size"),
        ({"context": "{name: sa-lstm}", "weaving__at": "botleneck"}, "did you mean bottleneck"),
    ],
)
def test_wrong_names_and_options_name_the_nearest(changes: dict[str, str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        small(**changes)


def test_a_network_with_other_classes_needs_the_position_output() -> None:
    with pytest.raises(UsageError, match="output"):
        small(network__options__classes=8, context="{name: sa-lstm}")
    network = small(
        network__options__classes=8,
        context="{name: sa-lstm}",
        weaving__at="output",
        weaving__join="replace",
    )
    assert network(torch.zeros(1, 1, 1, 16, 16)).logits.shape == (1, 4, 16, 16)


def saved(network: WovenNetwork, folder: Path) -> str:
    """A model folder with these weights, moved by one so that no start value equals them."""
    folder.mkdir()
    moved = {name: value + 1 for name, value in network.state_dict().items()}
    save_file(moved, folder / "weights.safetensors")
    return str(folder)


SA_LSTM = {"context": "{name: sa-lstm}", "input__slices": 3}


def taken(network: WovenNetwork, folder: str) -> set[str]:
    """Names of the tensors that are those of the folder."""
    held = load_file(Path(folder) / "weights.safetensors")
    return {n for n, t in network.state_dict().items() if n in held and torch.equal(t, held[n])}


def test_a_woven_network_starts_from_all_weights_of_a_run(tmp_path: Path) -> None:
    start = saved(small(**SA_LSTM), tmp_path / "model")
    network = small(**SA_LSTM, seed=4, network__pretrained=start)
    assert taken(network, start) == set(network.state_dict())
    file = str(Path(start) / "weights.safetensors")
    assert taken(small(**SA_LSTM, network__pretrained=file), start) == set(network.state_dict())


@pytest.mark.parametrize("before", [{}, {**SA_LSTM, "context": "{name: conv}"}])
def test_a_module_that_a_run_lacks_starts_anew(tmp_path: Path, before: dict[str, object]) -> None:
    start = saved(small(**before), tmp_path / "model")
    network = small(**SA_LSTM, network__pretrained=start)
    assert taken(network, start) == {n for n in network.state_dict() if n.startswith("network.")}
    fresh = small(**SA_LSTM).state_dict()
    own = network.state_dict()
    assert all(torch.equal(own[n], fresh[n]) for n in own if n.startswith("context."))


def test_a_module_of_other_shapes_is_refused(tmp_path: Path) -> None:
    start = saved(small(**SA_LSTM), tmp_path / "model")
    other = {**SA_LSTM, "context": "{name: sa-lstm, options: {kernel_size: 5}}"}
    with pytest.raises(InputError, match=r"context\..*shape"):
        small(**other, network__pretrained=start)


def test_another_head_only_where_it_is_asked_for(tmp_path: Path) -> None:
    start = saved(small(**SA_LSTM), tmp_path / "model")
    recipe = load_recipe(
        "demo",
        [
            "network.options.width=2",
            "network.options.levels=2",
            "context.name=sa-lstm",
            "input.slices=3",
            f"network.pretrained={start}",
        ],
    )
    lesion = TargetSpec(kind="binary", names=("background", "lesion"))
    with pytest.raises(InputError, match="only the head differs"):
        build_network(recipe, 1, lesion)
    chosen = recipe.network.model_copy(update={"new_head": True})
    network = build_network(recipe.model_copy(update={"network": chosen}), 1, lesion)
    new = set(network.state_dict()) - taken(network, start)
    assert new == {"network.classifier.weight", "network.classifier.bias"}
