"""What a plan decides, from facts that are written down here, and that each value has a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from segweave.errors import InputError, UsageError
from segweave.recipes import parse_recipe
from segweave.workflow.planner.choose import MOST_MEASURED, Choice, choose
from segweave.workflow.planner.decisions import SHARE_OF_TIME, Decision, to_recipe, to_values
from segweave.workflow.planner.facts import StoreFacts, choose_split, read_facts
from segweave.workflow.planner.machine import Machine
from segweave.workflow.planner.speed import Speed
from segweave.workflow.planner.text import to_text

HEARTS = StoreFacts(
    name="hearts",
    stack="space",
    kind="exclusive",
    classes=("right ventricle", "myocardium", "left ventricle"),
    channels=1,
    colour=False,
    split="all",
    other_splits=(),
    training=140,
    validation=20,
    slices=1300,
    validation_slices=190,
    size=(256, 216),
    largest=(512, 428),
    one_shape=False,
    spacing=(10.0, 1.5, 1.5),
    depth=9,
    oblique=None,
    shares={"right ventricle": 1.2, "myocardium": 1.3, "left ventricle": 1.1},
    hounsfield=None,
    looked_at=40,
)
POLYPS = replace(
    HEARTS,
    name="polyps",
    stack="single",
    kind="binary",
    classes=("polyp",),
    channels=3,
    colour=True,
    size=(288, 384),
    one_shape=True,
    spacing=None,
    depth=1,
    shares={"polyp": 9.0},
)
ABDOMEN = replace(
    HEARTS,
    classes=("left kidney", "right kidney", "pancreas"),
    size=(512, 512),
    one_shape=True,
    spacing=(1.0, 0.8, 0.8),
    depth=150,
    slices=4000,
    shares={"left kidney": 0.4, "right kidney": 0.4, "pancreas": 0.05},
    hounsfield=(-80.0, 300.0, 90.0, 60.0),
)
CPU = Machine("cpu", "test", 1, 2, 16 * 2**30, bf16=False)


def speed_of(decisions: Sequence[Decision]) -> Speed:
    """A machine whose steps take 20 ms and a time that grows with pixels, batch and width."""
    values = to_values(list(decisions))
    height, width = values["input"]["size"]
    channels = values["network"].get("options", {}).get("width", 8)
    samples = values["training"]["batch_size"] * values["input"]["slices"]
    work = height * width * samples * channels**2 / (128 * 128 * 8 * 16**2)
    half = 0.5 if values["training"]["precision"] == "bf16" else 1.0
    return Speed(step=0.02 + 0.25 * work * half, validation=6.0, checkpoint=0.1, reading=10.0)


def choice_of(
    facts: StoreFacts,
    hours: float = 1.0,
    machine: Machine = CPU,
    weights: str | None = None,
    **options: Any,
) -> Choice:
    return choose(
        facts,
        machine,
        hours,
        classes=4,
        stores=["/stores/one"],
        weights=weights,
        measure=speed_of,
        **options,
    )


TABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hearts in slices that are far apart": (
        {"facts": HEARTS},
        {
            "network.name": "unet",
            "input.fit": "pad",
            "input.slices": 1,
            "input.normalisation": "case-zscore",
            "training.augmentation.0.options.mirror": "both",
            "training.checkpoint": "best",
            "training.loss.1.name": "cross-entropy",
        },
    ),
    "organs of left and right in CT, nearly isotropic, much time": (
        {"facts": ABDOMEN, "hours": 2000},
        {
            "input.slices": 3,
            "context.name": "sa-lstm",
            "input.clip": [-80.0, 300.0],
            "input.normalisation": "fixed",
            "input.size": [512, 512],
            "training.augmentation.0.options.mirror": "none",
            "training.loss.1.name": "focal",
        },
    ),
    "the same with an hour": (
        {"facts": ABDOMEN},
        {"input.slices": 1, "context": None},
    ),
    "colour pictures with weights": (
        {"facts": POLYPS, "weights": "imagenet:file.pth"},
        {
            "network.name": "timm-unet",
            "network.pretrained": "imagenet:file.pth",
            "input.colour_order": "rgb",
            "input.fit": "stretch",
            "training.augmentation.0.options.rotation": 90,
        },
    ),
    "colour pictures without weights": (
        {"facts": POLYPS},
        {"network.name": "unet", "network.pretrained": None, "input.normalisation": "imagenet"},
    ),
    "overlapping classes, an organ on one side": (
        {"facts": replace(HEARTS, kind="overlapping", classes=("liver", "tumour"))},
        {"training.augmentation.0.options.mirror": "none"},
    ),
    "grey pictures": (
        {"facts": replace(POLYPS, colour=False, channels=1, classes=("nodule",))},
        {"training.augmentation.0.options.mirror": "rows", "input.channels": ["grey"]},
    ),
    "four channels": (
        {"facts": replace(HEARTS, channels=4, classes=("tumour",))},
        {"input.channels": ["channel-1", "channel-2", "channel-3", "channel-4"]},
    ),
    "one case of few slices, no validation cases": (
        {
            "facts": replace(
                HEARTS, training=1, slices=5, validation=0, validation_slices=0, size=(40, 48)
            )
        },
        {
            "data.validation": None,
            "training.checkpoint": "last",
            "training.batch_size": 1,
            "input.size": [64, 64],
            "training.epochs": 500,
        },
    ),
    "huge images, little memory": (
        {
            "facts": replace(ABDOMEN, size=(4000, 6000)),
            "hours": 2000,
            "machine": replace(CPU, memory=2**27),
        },
        {"training.batch_size": 1},
    ),
    "a GPU": (
        {"facts": HEARTS, "machine": replace(CPU, device="cuda:0", bf16=True)},
        {"training.batch_size": 16, "training.precision": "bf16"},
    ),
    "a CPU on which half precision is faster": (
        {"facts": HEARTS, "hours": 0.2, "may_use_bf16": True},
        {"training.precision": "bf16"},
    ),
}


def value_at(recipe: dict[str, Any], key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value[int(part)] if part.isdigit() else value[part]
    return value


@pytest.mark.parametrize("name", TABLE)
def test_decisions(name: str) -> None:
    given, expected = TABLE[name]
    choice = choice_of(**given)
    recipe = to_recipe(choice.decisions).to_dict()
    assert {key: value_at(recipe, key) for key in expected} == expected
    assert len(choice.measured) <= MOST_MEASURED + 1
    # It fits into the time by what was measured.
    speed, length = choice.speed, choice.length
    validations = length.epochs / length.validate_every
    seconds = length.epochs * (length.steps * speed.step + 0.1) + validations * speed.validation
    assert seconds <= SHARE_OF_TIME * given.get("hours", 1.0) * 3600
    assert choice_of(**given) == choice


@pytest.mark.parametrize("name", TABLE)
def test_every_value_has_its_reason_beside_it(name: str) -> None:
    choice = choice_of(**TABLE[name][0])
    text = to_text(["A heading."], choice.decisions)
    assert parse_recipe(yaml.safe_load(text)) == to_recipe(choice.decisions)
    for line in text.splitlines()[1:]:
        section = line.rstrip().endswith(":")
        item = line.lstrip().startswith("- ")
        assert section or item or len(line.partition("  # ")[2]) >= 8, line
    assert {decision.key for decision in choice.decisions} >= {"training.epochs", "input.size"}


def test_more_time_gives_images_that_are_no_smaller_and_more_epochs_within_one_size() -> None:
    choices = [choice_of(HEARTS, hours) for hours in (0.1, 0.3, 1, 3, 10, 100)]
    pixels = [one.candidate.size[0] * one.candidate.size[1] for one in choices]
    assert pixels == sorted(pixels)
    assert pixels[0] < pixels[-1]
    assert max(one.candidate.size[0] for one in choices) <= HEARTS.size[0]
    half, double = choice_of(HEARTS, 0.5), choice_of(HEARTS, 0.55)
    assert half.candidate == double.candidate
    assert half.length.epochs < double.length.epochs


def test_too_little_time_names_what_fits() -> None:
    with pytest.raises(UsageError, match="one epoch") as refused:
        choice_of(HEARTS, 0.005)
    hours = float(str(refused.value).partition("give --hours ")[2].split()[0])
    assert choice_of(HEARTS, hours).length.epochs >= 1


def test_time_that_planning_took_is_not_planned_again() -> None:
    assert choice_of(HEARTS, 1.0, spent=lambda: 1800.0).length == choice_of(HEARTS, 0.5).length


def test_no_memory_is_a_clear_message() -> None:
    with pytest.raises(UsageError, match="free memory"):
        choice_of(HEARTS, machine=replace(CPU, memory=2**20))


def test_a_batch_that_a_gpu_does_not_hold_is_halved() -> None:
    def measure(decisions: Sequence[Decision]) -> Speed:
        batch = to_values(list(decisions))["training"]["batch_size"]
        if batch > 4:
            raise MemoryError
        return speed_of(decisions)

    machine = replace(CPU, device="cuda:0")
    choice = choose(HEARTS, machine, 1, classes=4, stores=["/a"], weights=None, measure=measure)
    assert choice.candidate.batch == 4


def stub(splits: dict[str, dict[str, list[str]]], *, labelled: bool = True) -> Any:
    """As much of a store as choosing cases asks for."""
    ids = sorted({id for parts in splits.values() for part in parts.values() for id in part})
    return SimpleNamespace(
        name="stub",
        splits=splits,
        groups={id: id for id in ids},
        entry=lambda id: SimpleNamespace(id=id, labelled=labelled),
    )


def test_the_split_is_one_with_validation_cases_and_no_fold() -> None:
    fold = {"train": ["a"], "valid": ["b"]}
    whole = {"train": ["a", "b"]}
    splits = {"fold-0": fold, "whole": whole, "halves": fold}
    assert choose_split(stub(splits), None) == ("halves", ("whole",))
    assert choose_split(stub(splits), "fold-0") == ("fold-0", ("whole", "halves"))
    assert choose_split(stub({"whole": whole}), None) == ("whole", ())
    assert choose_split(stub({"fold-0": fold}), None) == ("fold-0", ())
    with pytest.raises(UsageError, match="did you mean halves"):
        choose_split(stub(splits), "halfs")
    with pytest.raises(UsageError, match="none in train"):
        choose_split(stub({"all": {"test": ["a"], "train": []}}), None)


def test_training_cases_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="2 of 2 without one, such as a"):
        read_facts(stub({"whole": {"train": ["a", "b"]}}, labelled=False))
