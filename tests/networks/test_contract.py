"""What every registered network promises, on tiny configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segweave import registry
from segweave.errors import UsageError
from segweave.networks import SegmentationNetwork, create_network
from segweave.networks.base import Output

NAMES = sorted(registry.networks.cards())


def tiny(name: str, **options: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    return create_network(name, **{**registry.networks.card(name).tiny_options, **options})


def sizes(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The smallest size that works and a larger one that is not square (a fixed size twice)."""
    card = registry.networks.card(name)
    if card.fixed is not None:
        return (card.fixed, card.fixed), (card.fixed, card.fixed)
    return (card.smallest, card.smallest), (card.smallest, card.smallest + card.divisor)


def image(network: SegmentationNetwork, size: tuple[int, int], batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, network.in_channels, *size, generator=generator)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image(name: str, in_channels: int, classes: int) -> None:
    network = tiny(name, in_channels=in_channels, classes=classes).eval()
    assert (network.in_channels, network.classes) == (in_channels, classes)
    for size in sizes(name):
        output = network(image(network, size))
        assert isinstance(output, Output)
        assert output.logits.shape == (2, classes, *size)


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_as_declared(name: str) -> None:
    network = tiny(name, classes=4).eval()
    height, width = sizes(name)[1]
    features = network.encode(image(network, (height, width)))
    decoded = network.decode(features)
    channels = network.channels
    assert set(channels) == {"skips", "bottleneck", "decoder", "output"}
    assert tuple(skip.shape[1] for skip in features.skips) == channels["skips"]
    assert (features.bottleneck.shape[1],) == channels["bottleneck"]
    assert (decoded.map.shape[1],) == channels["decoder"]
    assert channels["output"] == (4,)
    stride = network.stride
    assert features.bottleneck.shape[2:] == (height // stride, width // stride)
    areas = [skip.shape[2] * skip.shape[3] for skip in features.skips]
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] >= features.bottleneck.shape[2] * features.bottleneck.shape[3]


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_three_steps(name: str) -> None:
    network = tiny(name).eval()
    size = sizes(name)[1]
    x = image(network, size)
    steps = network.head(network.decode(network.encode(x)), size)
    whole = network(x)
    assert torch.equal(steps.logits, whole.logits)
    assert set(steps.auxiliary) == set(whole.auxiliary)
    for key, value in whole.auxiliary.items():
        assert torch.equal(steps.auxiliary[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_see_its_batch(name: str) -> None:
    network = tiny(name).double().eval()
    x = image(network, sizes(name)[1]).double()
    both = network(x).logits
    alone = network(x[:1]).logits
    assert both.dtype is torch.float64
    assert (both[:1] - alone).abs().max() <= 1e-9 * both.abs().max()
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("name", NAMES)
def test_eval_is_deterministic(name: str) -> None:
    network = tiny(name).eval()
    x = image(network, sizes(name)[1])
    assert torch.equal(network(x).logits, network(x).logits)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_size_names_one_that_works(name: str) -> None:
    network = tiny(name).eval()
    (smallest, _), (height, width) = sizes(name)
    card = registry.networks.card(name)
    if card.divisor == 1 and card.smallest == 1 and card.fixed is None:
        pytest.skip("takes every size")
    assert card.fixed is not None or (network.divisor, network.smallest) == (
        card.divisor,
        card.smallest,
    )
    wrong = [(smallest // 2, smallest // 2), (height + 1, width), (height, width + 1)]
    for size in wrong:
        with pytest.raises(UsageError) as raised:
            network(image(network, size))
        assert f"{size[0]}×{size[1]}" in str(raised.value)
        proposed = re.search(r"(\d+)×(\d+)", raised.value.remedy or "")
        assert proposed is not None
        network(image(network, (int(proposed[1]), int(proposed[2]))))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_channels_are_refused(name: str) -> None:
    network = tiny(name).eval()
    with pytest.raises(UsageError, match="shape"):
        network(torch.zeros(1, network.in_channels + 1, *sizes(name)[0]))
    with pytest.raises(UsageError, match="shape"):
        network(torch.zeros(network.in_channels, *sizes(name)[0]))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = tiny(name, classes=4).train()
    output = network(image(network, sizes(name)[1]))
    total = output.logits.square().mean()
    for value in output.auxiliary.values():
        total = total + value.square().mean()
    total.backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert parameter.grad.isfinite().all(), f"{key} has a gradient that is not finite"


@pytest.mark.parametrize("name", NAMES)
def test_instances_share_nothing(name: str) -> None:
    first, second = tiny(name), tiny(name)
    pointers = {t.data_ptr() for t in first.state_dict().values()}
    assert not pointers & {t.data_ptr() for t in second.state_dict().values()}
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), f"{key} ignores the seed"


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    network = tiny(name).eval()
    x = image(network, sizes(name)[0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = tiny(name, pretrained=tmp_path / "weights.safetensors").eval()
    assert torch.equal(other(x).logits, network(x).logits)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_is_finite(name: str) -> None:
    network = tiny(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(image(network, sizes(name)[1])).logits
    logits.float().square().mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exports(name: str) -> None:
    network = tiny(name).eval()
    x = image(network, sizes(name)[1])
    program = torch.export.export(network, (x,)).module()
    assert torch.allclose(program(x).logits, network(x).logits, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_names_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match="did you mean in_channels"):
        create_network(name, in_chanels=1)


def test_no_network_here_has_weights_from_imagenet() -> None:
    with pytest.raises(UsageError, match="has no weights from"):
        create_network("unet", pretrained="imagenet")
