"""Each loss is what its source defines, computed by hand or by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.networks.base import Output
from segweave.recipes.recipe import LossTerm
from segweave.training.losses.boundary import BoundaryLoss
from segweave.training.losses.cross_entropy import CrossEntropyLoss
from segweave.training.losses.dice import DiceLoss
from segweave.training.losses.focal import FocalLoss
from segweave.training.losses.image_dice import ImageDiceLoss
from segweave.training.losses.mutation import MutationLoss
from segweave.training.losses.pixel_dice import PixelDiceLoss
from segweave.training.losses.structure import StructureLoss
from segweave.training.losses.top_k import TopKLoss
from segweave.training.losses.tversky import TverskyLoss
from segweave.training.objective import WeightedLoss
from tests.training.loss_cases import BINARY, FOUR, OVERLAPPING, random_case


@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]))
@settings(max_examples=15, deadline=None)
def test_focal_agrees_with_monai(seed: int, gamma: float) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, label = random_case(BINARY, seed)
    theirs = monai.FocalLoss(gamma=gamma, alpha=0.25, reduction="mean")
    expected = theirs(logits, label[:, None].to(logits.dtype)).item()
    ours = FocalLoss(BINARY, gamma=gamma, alpha=0.25)(logits, label).item()
    assert ours == pytest.approx(expected, abs=1e-6)  # monai rounds inside to float32
    logits, label = random_case(FOUR, seed)
    theirs = monai.FocalLoss(
        gamma=gamma, use_softmax=True, to_onehot_y=True, include_background=True
    )
    # Monai's mean is over the classes too, of which one per pixel is not 0.
    expected = FOUR.classes * theirs(logits, label[:, None]).item()
    assert FocalLoss(FOUR, gamma=gamma)(logits, label).item() == pytest.approx(expected, abs=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    for target in (FOUR, BINARY, OVERLAPPING):
        logits, label = random_case(target, 6)
        expected = CrossEntropyLoss(target)(logits, label).item()
        assert FocalLoss(target, gamma=0)(logits, label).item() == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), alpha=st.floats(0, 1), beta=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_tversky_agrees_with_monai(seed: int, alpha: float, beta: float) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, label = random_case(FOUR, seed)
    theirs = monai.TverskyLoss(
        softmax=True,
        to_onehot_y=True,
        alpha=alpha,
        beta=beta,
        batch=True,
        smooth_nr=1e-3,
        smooth_dr=1e-3,
    )
    ours = TverskyLoss(FOUR, alpha=alpha, beta=beta, smooth=1e-3)
    expected = theirs(logits, label[:, None]).item()
    assert ours(logits, label).item() == pytest.approx(expected, abs=1e-6)
    focal = TverskyLoss(FOUR, alpha=alpha, beta=beta, smooth=1e-3, exponent=0.75)
    one_class = TargetSpec(kind="binary", names=("x",))
    single = TverskyLoss(one_class, exponent=1.0)
    sigmoid_logits, sigmoid_label = random_case(one_class, seed)
    plain = single(sigmoid_logits, sigmoid_label).item()
    raised = TverskyLoss(one_class, exponent=0.75)(sigmoid_logits, sigmoid_label).item()
    assert raised == pytest.approx(plain**0.75)
    assert focal(logits, label) >= ours(logits, label) - 1e-12


@given(seed=st.integers(0, 10_000), fraction=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_top_k_is_the_mean_of_the_largest_pixels(seed: int, fraction: float) -> None:
    logits, label = random_case(FOUR, seed)
    each = torch.nn.functional.cross_entropy(logits, label, reduction="none").flatten().tolist()
    largest = sorted(each, reverse=True)[: max(1, int(fraction * len(each)))]
    value = TopKLoss(FOUR, fraction=fraction)(logits, label).item()
    assert value == pytest.approx(sum(largest) / len(largest))
    whole = TopKLoss(FOUR, fraction=1)(logits, label).item()
    assert whole == pytest.approx(CrossEntropyLoss(FOUR)(logits, label).item())
    assert value >= whole - 1e-12


def structure_by_hand(
    logits: np.ndarray, mask: np.ndarray, window: int, *, released: bool
) -> float:
    """PraNet's structure loss of (B, H, W) arrays in plain loops."""
    p = 1 / (1 + np.exp(-logits))
    entropy = -(mask * np.log(p) + (1 - mask) * np.log(1 - p))
    reach = window // 2
    values = []
    for b in range(len(mask)):
        padded = np.pad(mask[b], reach)
        weight = np.empty_like(mask[b])
        for y, x in np.ndindex(*mask[b].shape):
            mean = padded[y : y + window, x : x + window].mean()
            weight[y, x] = 1 + 5 * abs(mean - mask[b][y, x])
        overlap = (p[b] * mask[b] * weight).sum()
        both = ((p[b] + mask[b]) * weight).sum()
        bce = entropy.mean() if released else (weight * entropy[b]).sum() / weight.sum()
        values.append(bce + 1 - (overlap + 1) / (both - overlap + 1))
    return float(np.mean(values))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("window", [3, 15, 31])
def test_structure_is_that_of_the_paper(released: bool, window: int) -> None:
    logits, label = random_case(BINARY, 7, batch=3)
    expected = structure_by_hand(
        logits[:, 0].numpy(), label.double().numpy(), window, released=released
    )
    loss = StructureLoss(BINARY, window=window, released=released)
    assert loss(logits, label).item() == pytest.approx(expected, abs=1e-12)


def test_structure_of_two_exclusive_classes_sees_the_softmax() -> None:
    two = TargetSpec(names=("background", "polyp"))
    logits, label = random_case(two, 8)
    difference = (logits[:, 1] - logits[:, 0])[:, None]
    foreground = StructureLoss(BINARY)(difference, label)
    background = StructureLoss(BINARY)(-difference, 1 - label)
    expected = (foreground + background).item() / 2
    assert StructureLoss(two)(logits, label).item() == pytest.approx(expected, abs=1e-12)


def image_dice_by_hand(logits: np.ndarray, mask: np.ndarray, above: float, below: float) -> float:
    """Of (B, H, W) arrays, pixel by pixel."""
    values = []
    for image, truth in zip(logits, mask, strict=True):
        overlap = size = 0.0
        for z, t in zip(image.flat, truth.flat, strict=True):
            p = 1 / (1 + math.exp(-z))
            overlap += p * t
            size += p + t
        values.append(1 - (2 * overlap + above) / (size + below))
    return sum(values) / len(values)


@given(seed=st.integers(0, 10_000), above=st.floats(0, 3), below=st.floats(0.1, 3))
@settings(max_examples=15, deadline=None)
def test_image_dice_is_the_mean_over_images(seed: int, above: float, below: float) -> None:
    logits, label = random_case(BINARY, seed, batch=3)
    expected = image_dice_by_hand(logits[:, 0].numpy(), label.numpy(), above, below)
    loss = ImageDiceLoss(BINARY, above=above, below=below)
    assert loss(logits, label).item() == pytest.approx(expected, abs=1e-12)
    alone = [loss(logits[k : k + 1], label[k : k + 1]).item() for k in range(3)]
    assert sum(alone) / 3 == pytest.approx(expected, abs=1e-12)
    logits, label = random_case(FOUR, seed)
    classes = [
        image_dice_by_hand(
            torch.logit(logits.softmax(1)[:, k]).numpy(), (label == k).numpy(), above, below
        )
        for k in range(4)
    ]
    value = ImageDiceLoss(FOUR, above=above, below=below)(logits, label).item()
    assert value == pytest.approx(sum(classes) / 4, abs=1e-10)


def test_image_dice_of_released_trainings() -> None:
    # FCBFormer's: 1 − 2 (I + 1) / (P + T + 1), less than 0 where all is right.
    fcbformer = ImageDiceLoss(BINARY, above=2)
    nothing = torch.zeros(1, 4, 5, dtype=torch.long)
    sure = torch.full((1, 1, 4, 5), -60.0, dtype=torch.float64)
    assert fcbformer(sure, nothing).item() == pytest.approx(-1)
    right = fcbformer(-sure, 1 - nothing).item()
    assert right == pytest.approx(1 - 2 * 21 / 41)
    assert -0.05 < right < 0
    # SANet's: an image without foreground costs 1 whatever is predicted.
    sanet = ImageDiceLoss(BINARY, above=0)
    assert sanet(sure, nothing).item() == sanet(-sure, nothing).item() == 1
    assert sanet(-sure, 1 - nothing).item() == pytest.approx(1 / 41)


@pytest.mark.parametrize("released", [False, True])
def test_pixel_dice_is_a_sum_of_two_terms_of_each_pixel(released: bool) -> None:
    logits, label = random_case(BINARY, 11, batch=3)
    values = []
    for z, t in zip(logits.flatten().tolist(), label.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        if released:
            p = 1 / (1 + math.exp(-p))
            assert 0.5 < p < 0.7311
        entropy = -math.log(p if t else 1 - p)
        values.append(entropy + 1 - (2 * p * t + 1) / (p + t + 1))
    loss = PixelDiceLoss(BINARY, released=released)
    assert loss(logits, label).item() == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_pixel_dice_knows_no_regions() -> None:
    logits, label = random_case(BINARY, 12)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    mixed = logits.flatten(2)[..., order].reshape(logits.shape)
    mixed_label = label.flatten(1)[..., order].reshape(label.shape)
    for released in (False, True):
        loss = PixelDiceLoss(BINARY, released=released)
        whole = loss(logits, label).item()
        assert loss(mixed, mixed_label).item() == pytest.approx(whole, abs=1e-12)
        halves = [loss(logits[:, :, :, k::2], label[:, :, k::2]).item() for k in range(2)]
        assert sum(halves) / 2 == pytest.approx(whole, abs=1e-12)
    # Of the released one, the least value is that of probabilities 0.5 and sigmoid(1).
    sure = torch.where(label[:, None] > 0, 60.0, -60.0).double()
    share = label.double().mean().item()
    p = 1 / (1 + math.exp(-1))
    foreground = -math.log(p) + 1 - (2 * p + 1) / (p + 2)
    background = math.log(2) + 1 - 1 / 1.5
    least = PixelDiceLoss(BINARY, released=True)(sure, label).item()
    assert least == pytest.approx(share * foreground + (1 - share) * background)
    assert least > 0.3


def square(size: int = 9) -> torch.Tensor:
    label = torch.zeros(1, size, size, dtype=torch.long)
    label[:, 2:7, 2:7] = 1
    return label


@pytest.mark.parametrize(("side", "pixels"), [("inner", 25 - 9), ("outer", 49 - 25)])
def test_a_boundary_map_is_compared_with_the_label_s_boundary(side: str, pixels: int) -> None:
    label = square()
    loss = BoundaryLoss(BINARY, of="boundary", side=side)  # type: ignore[arg-type]
    ring = (torch.nn.functional.max_pool2d(label[:, None].double(), 3, 1, 1) - label).bool()
    if side == "inner":
        ring = label[:, None].bool().clone()
        ring[:, :, 3:6, 3:6] = False
    assert int(ring.sum()) == pixels
    right = torch.where(ring, 30.0, -30.0).double()
    for channels in (1, 5):
        assert loss(right.expand(-1, channels, -1, -1), label).item() < 1e-9
    one_wrong = right.clone()
    one_wrong[0, 0, 0, 0] = 30.0
    assert loss(one_wrong, label).item() == pytest.approx(30 / 81, abs=1e-9)
    wider = BoundaryLoss(BINARY, of="boundary", side=side, radius=2)  # type: ignore[arg-type]
    assert wider(right, label) > 1
    with pytest.raises(UsageError, match="label's size"):
        loss(right[..., 1:], label)


def test_the_released_boundary_loss_of_hardnet_dfus() -> None:
    """Edges by a Laplacian above 0.1, and one sigmoid more."""
    torch.manual_seed(0)
    label = (torch.rand(2, 24, 20) > 0.4).long()
    label[0, :12] = 1  # a class that the image's edge ends
    kernel = torch.full((1, 1, 3, 3), -1.0).double()
    kernel[..., 1, 1] = 8
    edges = torch.nn.functional.conv2d(label[:, None].double(), kernel, padding=1) > 0.1
    map = torch.randn(2, 5, 24, 20).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        map.sigmoid(), edges.double().expand_as(map)
    )
    loss = BoundaryLoss(BINARY, of="boundary", released=True)
    assert loss(map, label).item() == pytest.approx(expected.item(), abs=1e-12)
    assert loss(map, label) != BoundaryLoss(BINARY, of="boundary")(map, label)


def test_the_edge_of_the_image_ends_a_class() -> None:
    label = torch.ones(1, 5, 5, dtype=torch.long)
    loss = BoundaryLoss(BINARY, of="boundary")
    frame = torch.full((1, 1, 5, 5), 30.0).double()
    frame[:, :, 1:4, 1:4] = -30
    assert loss(frame, label).item() < 1e-9


def test_soft_boundaries_grow_apart_with_a_shift() -> None:
    label = square(15)
    values = []
    for shift in range(4):
        moved = torch.roll(label, shift, 2)
        logits = torch.where(moved[:, None] > 0, 20.0, -20.0).double()
        values.append(BoundaryLoss(BINARY)(logits, label).item())
    assert values[0] < 1e-6
    assert values[0] < values[1] < values[2] < values[3]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_mutation_sums_over_all_subsets(count: int) -> None:
    label = random_case(FOUR, 9)[1]
    maps = {f"p{k}": random_case(FOUR, 10 + k)[0] for k in range(count)}
    output = Output(random_case(FOUR, 9)[0], maps)
    expected = 0.0
    for bits in range(1, 2**count):
        total = sum(maps[f"p{k}"] for k in range(count) if bits >> k & 1)
        expected += 0.3 * CrossEntropyLoss(FOUR)(total, label).item()
        expected += 0.7 * DiceLoss(FOUR)(total, label).item()
    assert MutationLoss(FOUR)(output, label).item() == pytest.approx(expected)
    named = MutationLoss(FOUR, outputs=[*maps], terms={"dice": 1.0})(output, label).item()
    assert named < expected
    term = LossTerm(name="mutation", weight=2, options={"outputs": ["p0", "logits"]})
    value = WeightedLoss((term,), FOUR)(output, label).item()
    by_hand = MutationLoss(FOUR, outputs=["p0", "logits"])(output, label).item()
    assert value == pytest.approx(2 * by_hand)


def test_mutation_says_what_it_cannot_combine() -> None:
    logits, label = random_case(FOUR, 9)
    with pytest.raises(UsageError, match="no auxiliary output"):
        MutationLoss(FOUR)(Output(logits, {}), label)
    with pytest.raises(UsageError, match="did you mean deep"):
        MutationLoss(FOUR, outputs=["deap", "logits"])(Output(logits, {"deep": logits}), label)
    with pytest.raises(UsageError, match="reads all outputs"):
        MutationLoss(FOUR, terms={"mutation": 1.0})
    with pytest.raises(UsageError, match="its options say which"):
        WeightedLoss((LossTerm(name="mutation", output="deep"),), FOUR)
