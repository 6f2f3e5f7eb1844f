"""The recipes of the papers' baselines: what they name exists, and each trains on the phantom of
its data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import segweave
from segweave import registry
from segweave.data.augmentations.plan import AugmentationPlan
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.phantoms.abdomen import write_abdomen
from segweave.phantoms.cardiac import write_cardiac
from segweave.phantoms.polyp import write_polyps
from segweave.phantoms.skin import write_skin
from segweave.recipes import ContextSetting, Recipe, as_set, list_recipes, load_recipe, recipe_file
from segweave.recipes.build import build_network
from segweave.training.objective import WeightedLoss

# TIP, Tables VI and VII; the second paper has SSFormer-S in place of SSFormer-L.
PAIRS = {
    "synapse": ("transunet", "mt-unet", "missformer", "dae-former", "merit"),
    "isic2018": ("unet", "dwunet", "resunet", "unetpp", "dcsau-net"),
    "acdc": ("missformer", "transunet", "dae-former", "mt-unet", "merit"),
    "cvc-clinicdb": (
        "fcbformer",
        "ssformer-l",
        "ssformer-s",
        "hardnet-dfus",
        "fanet",
        "esfpnet-t",
    ),
}
NAMES = [f"{dataset}-{network}" for dataset, networks in PAIRS.items() for network in networks]
# Networks that the source papers or their rivals compare with. FAT-Net and LeViT-UNet were released
# without training code.
RIVALS = {
    "synapse": ("swin-unet", "hiformer-b"),
    "isic2018": ("attention-unet", "r2unet", "msca-net"),
    "isic2017": ("transfuse-s", "tmunet"),
    "acdc": ("fct",),
    "cvc-clinicdb": ("pranet", "sanet", "ldnet", "colonsegnet", "tganet"),
}
RIVAL_NAMES = [
    f"{dataset}-{network}" for dataset, networks in RIVALS.items() for network in networks
]
NEEDS_TIMM = (
    *("transunet", "merit", "resunet", "fcbformer", "ssformer", "esfpnet", "swin", "hiformer"),
    *("msca", "transfuse", "tmunet", "pranet", "sanet", "ldnet", "tganet"),
)
WRITERS: dict[str, Callable[[Path], Any]] = {
    "synapse": lambda out: write_abdomen(out, 3, size=40, slices=3),
    "isic2018": lambda out: write_skin(out, 12, size=(40, 48)),
    "acdc": lambda out: write_cardiac(out, 4, size=(40, 36), slices=3),
    "cvc-clinicdb": lambda out: write_polyps(out, 4, 2, size=(40, 48)),
}


def network_of(name: str) -> str:
    sets = {**PAIRS, **RIVALS}
    return next(name.removeprefix(f"{d}-") for d in sets if name.startswith(f"{d}-"))


def small(name: str, *sets: str) -> Recipe:
    """The recipe with the network's tiny options, at a reduced size."""
    network = network_of(name)
    if network.startswith(NEEDS_TIMM):
        pytest.importorskip("timm")
    tiny = registry.networks.card(network).tiny_options
    options = [as_set(f"network.options.{key}", value) for key, value in tiny.items()]
    side = 64 if network == "mt-unet" else 32
    return load_recipe(name, [*options, f"input.size=[{side}, {side}]", *sets])


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The store of each data set's phantom, made when it is asked for."""
    made: dict[str, Path] = {}

    def store(dataset: str) -> Path:
        if dataset not in made:
            folder = tmp_path_factory.mktemp(dataset)
            WRITERS[dataset](folder / "raw")
            prepare(dataset, folder / "raw", folder / "store")
            made[dataset] = folder / "store"
        return made[dataset]

    return store


def test_there_is_a_recipe_for_every_pair() -> None:
    assert len(NAMES) == 21
    assert set(NAMES) <= set(list_recipes())


@pytest.mark.parametrize("name", NAMES + RIVAL_NAMES)
def test_what_it_names_exists(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.network.name == network_of(name)
    assert recipe.context is None
    dataset = name.removesuffix(f"-{network_of(name)}")
    card = registry.datasets.card(dataset)
    target = TargetSpec(kind=card.kind, names=card.classes)
    WeightedLoss(recipe.training.loss, target)
    AugmentationPlan(recipe.training.augmentation, recipe.input)
    # Nothing is downloaded unless the user asks for it.
    assert recipe.network.pretrained is None
    network = build_network(small(name), len(recipe.input.channels), target)
    full, least = recipe.input.size, getattr(network.network, "divisor", 1)
    assert full is not None
    assert all(side % least == 0 for side in full)
    outputs = [term.outputs for term in recipe.training.loss]
    image = torch.rand(2, 1, len(recipe.input.channels), 64, 64)
    masks = {} if network.feedback is None else {"mask": torch.zeros(2, 1, 1, 64, 64)}
    output = network(image, **masks)
    assert {one for names in outputs for one in names} <= {"logits", *output.auxiliary}


def texts_of(name: str) -> str:
    """The text of a recipe and of all that it extends."""
    text = recipe_file(name).read_text(encoding="utf-8")
    parents = yaml.safe_load(text).get("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    return "\n".join([text, *(texts_of(parent) for parent in parents)])


@pytest.mark.parametrize("name", NAMES + RIVAL_NAMES)
def test_its_training_has_a_source(name: str) -> None:
    assert "\n# Source" in texts_of(name)


def test_module_position_and_window_come_on_top() -> None:
    base = load_recipe("acdc-mt-unet")
    for at in ("bottleneck", "output"):
        setting = ContextSetting(context="sa-lstm", at=at, slices=3)
        woven = load_recipe("acdc-mt-unet", setting.changes(base))
        assert (woven.weaving.at, woven.slices) == (at, 3)
        assert woven.training == base.training


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_trains_two_epochs_on_its_phantom(
    name: str, stores: Callable[[str], Path], tmp_path: Path
) -> None:
    dataset = name.removesuffix(f"-{network_of(name)}")
    quick = ("training.epochs=2", "training.batch_size=4", "training.schedule.warm_up=0")
    recipe = small(name, *quick)
    store = Store(stores(dataset))
    run = segweave.train(recipe, store, tmp_path / "run", device="cpu")
    assert run.metrics[-1]["epoch"] == 2
    assert all(math.isfinite(row["loss"]) for row in run.metrics)
    assert (recipe.data.validation is None) == ("validation_dice" not in run.metrics[-1])
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    # Every field, defaults included; only the store is that of the call.
    assert {**stored, "data": None} == {**recipe.to_dict(), "data": None}
    start = dict(build_network(recipe, len(recipe.input.channels), store.target).named_parameters())
    weights = run.weights("last")
    moved = [name for name, p in start.items() if not torch.equal(p.detach(), weights[name])]
    assert len(moved) > 0.5 * len(start)
