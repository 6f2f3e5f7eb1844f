"""What every network promises, registered or toy, on tiny configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segweave import registry
from segweave.blocks.conv_norm import fold_weights
from segweave.card_files import read_cards
from segweave.errors import InputError, UsageError
from segweave.networks import Output, SegmentationNetwork, create_network, first_inputs, mask_of
from segweave.registry import NetworkCard

TOYS = Path(__file__).with_name("toys.py")
CARDS = {
    **registry.networks.cards(),
    **{card.name: card for card in read_cards(TOYS, NetworkCard)},
}
NAMES = sorted(CARDS)
pytestmark = pytest.mark.usefixtures("toys")
Size = tuple[int, int]


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    names = registry.networks.add_file(TOYS)
    yield
    for name in names:
        registry.networks._found().pop(name)


def tiny(name: str, **options: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    return create_network(name, **{**CARDS[name].tiny_options, **options})


def sizes(name: str) -> tuple[Size, Size]:
    """The smallest size that works and a larger one that is not square; of fixed sizes the first
    and the last.
    """
    card = CARDS[name]
    if card.fixed:
        allowed = [(n, n) if isinstance(n, int) else n for n in card.fixed]
        return allowed[0], allowed[-1]
    return (card.smallest, card.smallest), (card.smallest, card.smallest + card.divisor)


def image(network: SegmentationNetwork, size: Size, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, network.in_channels, *size, generator=generator)


def inputs(network: SegmentationNetwork, x: Tensor) -> dict[str, Tensor]:
    """The first mask and the box of the whole image, where the network reads them."""
    return first_inputs(network, x)


def run(network: SegmentationNetwork, x: Tensor, **options: Any) -> Output:
    output = network(x, **inputs(network, x), **options)
    assert isinstance(output, Output)
    return output


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image(name: str, in_channels: int, classes: int) -> None:
    network = tiny(name, in_channels=in_channels, classes=classes).eval()
    assert (network.in_channels, network.classes) == (in_channels, classes)
    for size in sizes(name):
        output = run(network, image(network, size))
        assert output.logits.shape == (2, classes, *size)


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_as_declared(name: str) -> None:
    network = tiny(name, classes=4).eval()
    height, width = sizes(name)[1]
    x = image(network, (height, width))
    features = network.encode(x, **inputs(network, x))
    decoded = network.decode(features)
    channels = network.channels
    assert set(channels) == {"skips", "bottleneck", "decoder", "output"}
    assert tuple(skip.shape[1] for skip in features.skips) == channels["skips"]
    assert (features.bottleneck.shape[1],) == channels["bottleneck"]
    assert (decoded.map.shape[1],) == channels["decoder"]
    assert channels["output"] == (4,)
    stride = network.stride
    # An encoder may round the size of its map down or up.
    for side, length in zip(features.bottleneck.shape[2:], (height, width), strict=True):
        assert side in (length // stride, -(-length // stride))
    areas = [one.shape[2] * one.shape[3] for one in (*features.skips, features.bottleneck)]
    assert areas == sorted(areas, reverse=True)
    # What is carried on is batched, so that weaving can carry it for each slice.
    extra = [*features.extra.values(), *decoded.extra.values()]
    assert all(isinstance(one, Tensor) and one.shape[0] == 2 for one in extra)


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_three_steps(name: str) -> None:
    network = tiny(name).eval()
    size = sizes(name)[1]
    x = image(network, size)
    for auxiliary in (False, True):
        features = network.encode(x, **inputs(network, x))
        steps = network.head(network.decode(features), size, auxiliary)
        whole = run(network, x, auxiliary=auxiliary)
        assert torch.equal(steps.logits, whole.logits)
        assert set(steps.auxiliary) == set(whole.auxiliary)
        for key, value in whole.auxiliary.items():
            assert torch.equal(steps.auxiliary[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_auxiliary_outputs_are_computed_only_when_wanted(name: str) -> None:
    network = tiny(name, classes=4)
    size = sizes(name)[1]
    x = image(network, size)
    in_training = run(network.train(), x).auxiliary
    assert run(network, x, auxiliary=False).auxiliary == {}
    network.eval()
    asked = run(network, x, auxiliary=True)
    plain = run(network, x)
    assert set(asked.auxiliary) == set(in_training)
    assert plain.auxiliary == {}
    assert torch.equal(plain.logits, asked.logits)
    for key, value in asked.auxiliary.items():
        assert value.ndim in (2, 4), key
        assert value.shape[0] == 2
        assert value.ndim == 2 or value.shape[2:] == size, key


@pytest.mark.parametrize("name", NAMES)
def test_feedback_and_prompt_are_the_only_further_inputs(name: str) -> None:
    network = tiny(name, classes=2).eval()
    x = image(network, sizes(name)[1])
    mask = torch.zeros_like(x[:, :1])
    with pytest.raises(UsageError, match="another="):
        network.encode(x, **inputs(network, x), another=mask)
    feedback, prompt = network.feedback, network.prompt
    assert CARDS[name].prompt == ("" if prompt is None else prompt.kind)
    if prompt is None:
        with pytest.raises(UsageError, match="boxes="):
            network.encode(x, **inputs(network, x), boxes=torch.zeros(2, 4))
    else:
        boxes = inputs(network, x)[prompt.name]
        assert boxes.shape == (2, 4)
        with pytest.raises(UsageError, match=f"{prompt.name}="):
            network.encode(x)
        with pytest.raises(UsageError, match=f"{prompt.name} of shape"):
            network.encode(x, **{**inputs(network, x), prompt.name: boxes[:, :3]})
        smaller = {**inputs(network, x), prompt.name: boxes / 2}
        assert not torch.allclose(network(x, **smaller).logits, run(network, x).logits)
        assert 0 <= prompt.jitter < 1
    if feedback is None:
        with pytest.raises(UsageError, match="mask="):
            network.encode(x, mask=mask)
        return
    with pytest.raises(UsageError, match=f"{feedback.name}="):
        network.encode(x)
    with pytest.raises(UsageError, match=f"{feedback.name} of shape"):
        network.encode(x, **{feedback.name: mask[..., :-1]})
    assert feedback.rounds >= 1
    mask = feedback.first(x)
    for _ in range(feedback.rounds):
        assert mask.shape == (2, 1, *x.shape[2:])
        assert mask.dtype == x.dtype
        assert set(mask.unique().tolist()) <= {0, 1}
        output = network(x, **{feedback.name: mask})
        mask = mask_of(output, exclusive=True)
        assert not mask.requires_grad
    other = network(x, **{feedback.name: 1 - feedback.first(x)}).logits
    assert not torch.equal(other, network(x, **inputs(network, x)).logits)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_see_its_batch(name: str) -> None:
    network = tiny(name).double().eval()
    x = image(network, sizes(name)[1]).double()
    both = run(network, x).logits
    alone = run(network, x[:1]).logits
    assert both.dtype is torch.float64
    assert (both[:1] - alone).abs().max() <= 1e-9 * both.abs().max()
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("name", NAMES)
def test_eval_is_deterministic(name: str) -> None:
    network = tiny(name).eval()
    x = image(network, sizes(name)[1])
    assert torch.equal(run(network, x).logits, run(network, x).logits)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_states_the_size_rule_of_the_default_options(name: str) -> None:
    with torch.device("meta"):  # shapes without numbers: the default options may be large
        network = create_network(name)
    card = CARDS[name]
    assert (network.divisor, network.smallest) == (card.divisor, card.smallest)
    assert tuple(network.fixed) == card.fixed
    assert card.smallest % card.divisor == 0
    for height, width in [(n, n) if isinstance(n, int) else n for n in card.fixed]:
        assert height % card.divisor == width % card.divisor == 0
        assert min(height, width) >= card.smallest


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_size_names_one_that_works(name: str) -> None:
    network = tiny(name).eval()
    card = CARDS[name]
    (smallest, _), (height, width) = sizes(name)
    if card.divisor == 1 and card.smallest == 1 and not card.fixed:
        pytest.skip("takes every size")
    wrong = [(smallest // 2, smallest // 2)]
    if card.divisor > 1 or card.fixed:
        wrong += [(height + 1, width), (height, width + 1)]
    if card.fixed:
        wrong.append((2 * height, 2 * width))
    for size in wrong:
        x = image(network, size)
        with pytest.raises(UsageError) as raised:
            run(network, x)
        assert f"{size[0]}×{size[1]}" in str(raised.value)
        proposed = re.search(r"(\d+)×(\d+)", raised.value.remedy or "")
        assert proposed is not None
        run(network, image(network, (int(proposed[1]), int(proposed[2]))))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_channels_are_refused(name: str) -> None:
    network = tiny(name).eval()
    with pytest.raises(UsageError, match="shape"):
        network(torch.zeros(1, network.in_channels + 1, *sizes(name)[0]))
    with pytest.raises(UsageError, match="shape"):
        network(torch.zeros(network.in_channels, *sizes(name)[0]))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_that_is_trained_gets_a_gradient(name: str) -> None:
    network = tiny(name, classes=4).train()
    output = run(network, image(network, sizes(name)[1]))
    total = output.logits.square().mean()
    for value in output.auxiliary.values():
        total = total + value.square().mean()
    total.backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{key} has no gradient"
            assert parameter.grad.isfinite().all(), f"{key} has a gradient that is not finite"


@pytest.mark.parametrize("name", NAMES)
def test_instances_share_nothing(name: str) -> None:
    first, second = tiny(name), tiny(name)
    pointers = {t.data_ptr() for t in first.state_dict().values()}
    assert not pointers & {t.data_ptr() for t in second.state_dict().values()}
    others = second.state_dict()
    for key, value in first.state_dict().items():
        assert torch.equal(value, others[key]), f"{key} ignores the seed"


@pytest.mark.parametrize("name", NAMES)
def test_batch_norms_fold_but_for_those_that_the_card_counts(name: str) -> None:
    network = tiny(name).double()
    x = image(network, sizes(name)[1]).double()
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
        run(network.train(), x)
        folded = fold_weights(network)
        expected = run(network.eval(), x).logits
        difference = (run(folded, x).logits - expected).abs().max()
    assert difference <= 1e-9 * expected.abs().max()
    count, reason = CARDS[name].unfolded
    assert norms(folded) == count
    assert bool(count) == bool(reason)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    network = tiny(name).eval()
    x = image(network, sizes(name)[0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = tiny(name, pretrained=tmp_path / "weights.safetensors").eval()
    assert torch.equal(run(other, x).logits, run(network, x).logits)
    assert other.pretrained is not None
    assert set(other.pretrained.loaded) == set(network.state_dict())
    assert other.pretrained.missing == other.pretrained.unused == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_new_head_takes_another_number_of_classes(name: str, tmp_path: Path) -> None:
    network = tiny(name, classes=2)
    file = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), file)
    with pytest.raises(InputError, match="new_head=True"):
        tiny(name, classes=3, pretrained=file)
    other = tiny(name, classes=3, pretrained=file, new_head=True)
    report = other.pretrained
    assert report is not None
    assert set(report.loaded) | set(report.missing) == set(other.state_dict())
    assert report.missing
    assert set(report.missing) == set(report.unused)
    before, after = network.state_dict(), other.state_dict()
    for key in report.loaded:
        assert torch.equal(after[key], before[key])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_is_finite(name: str) -> None:
    network = tiny(name).train()
    x = image(network, sizes(name)[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(network, x)
    total = sum(one.float().square().mean() for one in (output.logits, *output.auxiliary.values()))
    assert isinstance(total, Tensor)
    total.backward()
    assert output.logits.isfinite().all()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    assert all(one is not None and one.isfinite().all() for one in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exports(name: str) -> None:
    network = tiny(name).double().eval()
    x = image(network, sizes(name)[1]).double()
    program = torch.export.export(network, (x,), inputs(network, x)).module()
    expected = run(network, x)
    output = program(x, **inputs(network, x))
    assert output.auxiliary == expected.auxiliary == {}
    assert torch.allclose(output.logits, expected.logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_names_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match="did you mean in_channels"):
        create_network(name, in_chanels=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_explains_positions_and_lists_weights(name: str) -> None:
    card = CARDS[name]
    assert set(card.positions) <= {"encoder", "bottleneck", "skips", "decoder", "output"}
    for sentence in card.positions.values():
        assert "\n" not in sentence
        assert not sentence.endswith(".")
    for entry in card.weights:
        assert {"tag", "source", "licence", "mean", "sd"} <= set(entry)
        assert len(entry["mean"]) == len(entry["sd"]) == 3
    network = tiny(name)
    assert bool(card.weights) == bool(network.backbones)
    for backbone in network.backbones:
        network.get_submodule(backbone)
