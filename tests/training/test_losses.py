"""Losses: the case of the released training, properties, the contract over the registry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave import registry
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.networks.base import Output
from segweave.recipes.recipe import LossTerm
from segweave.training.losses.cross_entropy import CrossEntropyLoss
from segweave.training.losses.dice import DiceLoss
from segweave.training.losses.focal import FocalLoss
from segweave.training.losses.image_dice import ImageDiceLoss
from segweave.training.losses.pixel_dice import PixelDiceLoss
from segweave.training.losses.tversky import TverskyLoss
from segweave.training.objective import WeightedLoss
from tests.reference.fill import uniform
from tests.training.loss_cases import BINARY, FOUR, OVERLAPPING, output_of, random_case

REFERENCE = json.loads(
    (Path(__file__).parent.parent / "reference" / "protocol_cases.json").read_text()
)["loss"]
OF_MAPS = [
    name
    for name, card in registry.losses.cards().items()
    if card.task == "labels" and name != "object-words"
]
"""Losses that compare maps with the label pixel by pixel; the other has separate tests."""
HALVES = (LossTerm(name="dice", weight=0.5), LossTerm(name="cross-entropy", weight=0.5))


def reference_case() -> tuple[torch.Tensor, torch.Tensor]:
    logits = (6 * uniform("protocol.logits", (2, 4, 6, 8)) - 3).astype(np.float32)
    label = np.floor(4 * uniform("protocol.labels", (2, 6, 8))).astype(np.int64)
    label[label == 3] = 0
    return torch.from_numpy(logits), torch.from_numpy(label)


def test_the_case_of_the_released_training() -> None:
    logits, label = reference_case()
    total = WeightedLoss(HALVES, FOUR)(Output(logits, {}), label)
    nothing = torch.zeros_like(label)
    assert DiceLoss(FOUR)(logits, label).item() == pytest.approx(REFERENCE["dice_loss"], abs=2e-7)
    assert CrossEntropyLoss(FOUR)(logits, label).item() == pytest.approx(
        REFERENCE["cross_entropy"], abs=3e-7
    )
    assert total.item() == pytest.approx(REFERENCE["total"], abs=3e-7)
    assert DiceLoss(FOUR)(logits, nothing).item() == pytest.approx(
        REFERENCE["dice_loss_all_background"], abs=2e-7
    )


@pytest.mark.parametrize("name", OF_MAPS)
@pytest.mark.parametrize("target", [FOUR, BINARY, OVERLAPPING], ids=lambda t: t.kind)
def test_every_loss_is_finite_differentiable_and_least_where_right(
    name: str, target: TargetSpec
) -> None:
    logits, label = random_case(target, 0)
    loss = WeightedLoss((LossTerm(name=name),), target)
    logits.requires_grad_()
    value = loss(output_of(logits, name), label)
    value.backward()
    assert value.ndim == 0
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0
    truth = label if target.kind == "overlapping" else label[:, None]
    if target.kind == "exclusive":
        right = torch.stack([label == k for k in range(target.classes)], 1)
    else:
        right = truth > 0
    sure = torch.where(right, 40.0, -40.0).double()
    assert loss(output_of(sure, name), label) < 1e-6
    assert loss(output_of(-sure, name), label) > 0.3


def test_losses_of_images_are_means_of_differences_and_refuse_classes() -> None:
    target = TargetSpec(kind="image", names=("CT",), unit="HU", range=(-160, 240))
    truth = torch.randn(2, 1, 5, 6)
    for name, wanted in (("l1", 0.5), ("mse", 0.25)):
        loss = WeightedLoss((LossTerm(name=name, weight=2),), target)
        assert loss(Output(truth + 0.5, {}), truth).item() == pytest.approx(2 * wanted)
        assert loss(Output(truth, {}), truth).item() == 0
        with pytest.raises(UsageError, match="shape"):
            loss(Output(truth[:, :, 1:], {}), truth)
        with pytest.raises(UsageError, match="compares images"):
            WeightedLoss((LossTerm(name=name),), FOUR)
    with pytest.raises(UsageError, match="l1, mse"):
        WeightedLoss((LossTerm(name="dice"),), target)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from([FOUR, BINARY, OVERLAPPING]))
@settings(max_examples=30, deadline=None)
def test_dice_is_between_0_and_1_and_knows_no_order(seed: int, kind: TargetSpec) -> None:
    logits, label = random_case(kind, seed, batch=3)
    loss = DiceLoss(kind)
    value = loss(logits, label).item()
    assert 0 <= value <= 1
    assert loss(logits.flip(0), label.flip(0)).item() == pytest.approx(value, abs=1e-12)
    assert loss(logits.flip(3), label.flip(-1)).item() == pytest.approx(value, abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_cross_entropy_agrees_with_torch(seed: int) -> None:
    logits, label = random_case(FOUR, seed)
    expected = torch.nn.functional.cross_entropy(logits, label)
    assert CrossEntropyLoss(FOUR)(logits, label).item() == pytest.approx(expected.item(), abs=1e-12)
    logits, label = random_case(BINARY, seed)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, 0], label.to(logits.dtype)
    )
    assert CrossEntropyLoss(BINARY)(logits, label).item() == pytest.approx(
        expected.item(), abs=1e-12
    )


@pytest.mark.parametrize("name", OF_MAPS)
@pytest.mark.parametrize("target", [FOUR, BINARY], ids=lambda t: t.kind)
def test_ignored_pixels_do_not_count(name: str, target: TargetSpec) -> None:
    target = target.model_copy(update={"ignored": 255})
    loss = WeightedLoss((LossTerm(name=name),), target)
    logits, label = random_case(target, 1)
    label[:, 2:4, 1:5] = 255
    changed = logits.clone()
    changed[:, :, 2:4, 1:5] += 7.0
    changed.requires_grad_()
    value = loss(output_of(changed, name), label)
    value.backward()
    assert changed.grad is not None
    assert value.item() == pytest.approx(loss(output_of(logits, name), label).item(), abs=1e-12)
    assert changed.grad[:, :, 2:4, 1:5].abs().max() == 0
    assert changed.grad.abs().max() > 0
    everywhere = torch.full_like(label, 255)
    assert torch.isfinite(loss(output_of(logits, name), everywhere))


def test_the_ignored_label_equals_leaving_the_pixels_out() -> None:
    target = FOUR.model_copy(update={"ignored": 9})
    logits, label = random_case(target, 2)
    label[:, :, 4:] = 9
    for kind in (
        DiceLoss,
        CrossEntropyLoss,
        FocalLoss,
        TverskyLoss,
        ImageDiceLoss,
        PixelDiceLoss,
    ):
        cut = kind(FOUR)(logits[..., :4], label[..., :4]).item()
        assert kind(target)(logits, label).item() == pytest.approx(cut, abs=1e-12)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, label = reference_case()
    value = WeightedLoss(HALVES, FOUR)(Output(logits.bfloat16(), {}), label)
    expected = WeightedLoss(HALVES, FOUR)(Output(logits.bfloat16().float(), {}), label)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()


def test_a_term_reads_the_output_it_names() -> None:
    logits, label = random_case(FOUR, 3)
    other = random_case(FOUR, 4)[0]
    terms = (LossTerm(name="dice"), LossTerm(name="dice", weight=0.25, output="deep"))
    value = WeightedLoss(terms, FOUR)(Output(logits, {"deep": other}), label).item()
    dice = DiceLoss(FOUR)
    assert value == pytest.approx((dice(logits, label) + 0.25 * dice(other, label)).item())
    both = (LossTerm(name="dice", weight=2, output=["logits", "deep"]),)
    value = WeightedLoss(both, FOUR)(Output(logits, {"deep": other}), label).item()
    assert value == pytest.approx(2 * (dice(logits, label) + dice(other, label)).item())
    with pytest.raises(UsageError, match="no output 'deep'"):
        WeightedLoss(terms, FOUR)(Output(logits, {}), label)


def test_wrong_names_and_shapes_say_so() -> None:
    with pytest.raises(UsageError, match="did you mean dice"):
        WeightedLoss((LossTerm(name="dise"),), FOUR)
    with pytest.raises(UsageError, match="did you mean smooth"):
        WeightedLoss((LossTerm(name="dice", options={"smoth": 1}),), FOUR)
    logits, label = random_case(FOUR, 5)
    with pytest.raises(UsageError, match="label of shape"):
        DiceLoss(FOUR)(logits, label[:, :-1])


# Each loss against an independent formula or another implementation.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": -1}),
        ("focal", {"alpha": 2.0}),
        ("focal", {"alpha": 0.25}),
        ("tversky", {"exponent": 0}),
        ("top-k", {"fraction": 0}),
        ("structure", {"window": 4}),
        ("boundary", {"of": "edges"}),
        ("boundary", {"radius": 0}),
        ("boundary", {"released": True}),
        ("image-dice", {"above": -1}),
        ("image-dice", {"below": 0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"creating the loss '{name}'"):
        WeightedLoss((LossTerm(name=name, options=options),), FOUR)
