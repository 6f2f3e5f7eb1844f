"""TGANet's loss of the number and size of objects, from masks whose words are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from segweave import registry
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.errors import UsageError
from segweave.networks.base import Output
from segweave.recipes.recipe import LossTerm
from segweave.training.losses.object_words import ObjectWordsLoss
from segweave.training.objective import WeightedLoss
from tests.training import toy

POLYP = TargetSpec(kind="binary", names=("background", "polyp"))


def mask(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """20 × 20 pixels with rectangles (top, left, height, width)."""
    label = torch.zeros(20, 20, dtype=torch.long)
    for top, left, height, width in boxes:
        label[top : top + height, left : left + width] = 1
    return label


CASES = {
    "none": (mask(), (-1, -1)),
    "one small": (mask((2, 2, 5, 7)), (0, 0)),
    "one medium, its share exactly at the limit": (mask((0, 0, 4, 10)), (0, 1)),
    "one large": (mask((0, 0, 15, 15)), (0, 2)),
    "corners touch: still one": (mask((0, 0, 4, 4), (4, 4, 4, 4)), (0, 1)),
    "several, of which the largest counts": (mask((0, 0, 2, 2), (5, 5, 12, 12)), (1, 2)),
    "three small ones": (mask((0, 0, 1, 1), (5, 5, 1, 1), (9, 9, 2, 2)), (1, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_words_of_a_mask(name: str) -> None:
    label, words = CASES[name]
    assert ObjectWordsLoss(POLYP).words(label[None]) == [words]


def test_every_kind_of_target_and_ignored_pixels() -> None:
    box = mask((0, 0, 15, 15))[None]
    three = TargetSpec(names=("background", "a", "b"))
    assert ObjectWordsLoss(three).words(box * 2) == [(0, 2)]
    overlapping = TargetSpec(kind="overlapping", names=("a", "b"))
    both = torch.stack([mask((0, 0, 2, 2)), mask((10, 10, 2, 2))])[None]
    assert ObjectWordsLoss(overlapping).words(both) == [(1, 0)]
    ignoring = POLYP.model_copy(update={"ignored": 255})
    assert ObjectWordsLoss(ignoring).words(box * 255) == [(-1, -1)]


def test_value_and_gradient_by_hand() -> None:
    label = torch.stack([CASES["one small"][0], CASES["none"][0]])
    number = torch.tensor([[1.0, -1.0], [9.0, -9.0]], requires_grad=True)
    size = torch.tensor([[0.5, 0.0, 0.0], [7.0, 0.0, 0.0]], requires_grad=True)
    output = Output(torch.zeros(2, 1, 20, 20), {"number": number, "size": size})
    value = WeightedLoss((LossTerm(name="object-words", weight=2.0),), POLYP)(output, label)
    expected = math.log(1 + math.exp(-2)) + math.log(1 + 2 * math.exp(-0.5))
    assert value.item() == pytest.approx(2 * expected, rel=1e-6)
    value.backward()
    assert number.grad is not None
    assert number.grad[0].abs().min() > 0
    assert number.grad[1].abs().max() == 0  # no object, no words
    released = ObjectWordsLoss(POLYP, released=True)(output, label)
    by_hand = torch.nn.functional.cross_entropy(number[:1].softmax(1), torch.tensor([0]))
    by_hand = by_hand + torch.nn.functional.cross_entropy(size[:1].softmax(1), torch.tensor([0]))
    assert released.item() == pytest.approx(by_hand.item())
    nothing = ObjectWordsLoss(POLYP)(output, torch.zeros_like(label))
    assert nothing.item() == 0
    nothing.backward()


def test_what_it_can_not_read_is_reported() -> None:
    label = mask((0, 0, 2, 2))[None]
    with pytest.raises(UsageError, match="such as tganet"):
        ObjectWordsLoss(POLYP)(Output(torch.zeros(1, 1, 20, 20), {}), label)
    wrong = {"number": torch.zeros(1, 3), "size": torch.zeros(1, 3)}
    with pytest.raises(UsageError, match=r"not \(1, 2\)"):
        ObjectWordsLoss(POLYP)(Output(torch.zeros(1, 1, 20, 20), wrong), label)
    with pytest.raises(UsageError, match="rising shares"):
        ObjectWordsLoss(POLYP, limits=(0.3, 0.1))


@pytest.mark.slow
def test_tganet_trains_its_classifiers(binary_store: Store, out: Path) -> None:
    pytest.importorskip("timm")
    words = {"name": "object-words", "options": {"released": True}}
    run = toy.run_of(
        binary_store,
        out,
        network={"name": "tganet", "options": registry.networks.card("tganet").tiny_options},
        input__size=[32, 32],
        training__loss=[{"name": "cross-entropy"}, {"name": "dice"}, words],
        training__batch_size=4,
        training__epochs=2,
    )
    losses = [row["loss"] for row in run.metrics]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
