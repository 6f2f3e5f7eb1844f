"""TMUNet against the released numbers, and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from segweave.networks.base import Size
from segweave.networks.tmunet import TMUNet
from tests.networks.agreement import Agreement, files_of, read_spec

pytest.importorskip("timm")

FILES = files_of("tmunet")
TINY = registry.networks.card("tmunet").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    """With the coefficient of each token, of which the map shows all but the last."""
    side = spec["input_shape"][2]
    options = {"image_size": side, "patch_size": 8 if side == 64 else 16}
    network = create_network("tmunet", classes=spec["num_classes"], **options)
    assert isinstance(network, TMUNet)
    attended = network.attended

    def with_coefficients(x: Tensor, tokens: Tensor, grid: Size, auxiliary: bool) -> Output:
        output = attended(x, tokens, grid, auxiliary)
        coefficients = tokens.mean(dim=2, keepdim=True)
        return output._replace(auxiliary={**output.auxiliary, "coefficients": coefficients})

    network.attended = with_coefficients  # type: ignore[method-assign]
    return network


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    auxiliary = output.auxiliary
    maps = (output.logits, auxiliary["boundary"], auxiliary["coefficients"])
    return [one.sigmoid() for one in maps]


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"tmunet", "tmunet@64x64"}


@pytest.mark.slow
def test_agrees_in_float64_and_the_released_names_are_complete() -> None:
    # The outputs of the smaller file, for the sake of time: filling 165 million parameters takes
    # most of it. Outputs and gradients of both files differ by less than 5e-8.
    name = "tmunet@64x64"
    agreement = Agreement(name, build, torch.float64, outputs=outputs, auxiliary=True)
    assert len(agreement.values) == 3
    agreement.assert_agrees()
    report = agreement.report
    assert len(report.matched) == len(agreement.spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()


def test_the_released_size_has_the_released_parameters() -> None:
    spec = read_spec("tmunet")
    with torch.device("meta"):
        network = create_network("tmunet")
    assert isinstance(network, TMUNet)
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]
    state = network.state_dict()
    shapes = {n: list(state[k].shape) for k, n in network.released_names().tensors.items()}
    assert shapes == dict(spec["state_dict"])


def tiny(**options: Any) -> TMUNet:
    torch.manual_seed(0)
    network = create_network("tmunet", **{**TINY, **options}).double().eval()
    assert isinstance(network, TMUNet)
    return network


def test_the_maps_of_the_tokens_are_shifted_by_one_patch() -> None:
    network = tiny(patch_size=16)
    tokens = torch.arange(7.0).double().reshape(1, 7, 1).expand(1, 7, 8)
    x = torch.randn(1, 4, 32, 48).double()
    region = network.attended(x, tokens, (2, 3), True).auxiliary["region"]
    assert region.shape == (1, 1, 32, 48)
    assert torch.equal(region[0, 0, 8::16, 8::16], torch.tensor([[0, 1, 2], [3, 4, 5]]).double())
    assert torch.equal(region[..., :16, :16], torch.zeros(1, 1, 16, 16).double())


def test_the_attention_by_hand() -> None:
    block = tiny().patches.blocks[0]
    x = torch.randn(2, 5, 8).double()
    with torch.no_grad():
        joined = block.qkv(block.norm1(x)).reshape(2, 5, 2, 4, 3)
        query, key, value = (one.transpose(1, 2) for one in joined.unbind(-1))
        mixed = (query @ key.mT).softmax(-1) / 8**0.5 @ value
        expected = x + block.projection(mixed.transpose(1, 2).reshape(2, 5, 8))
        expected = expected + block.fc2(nn.functional.gelu(block.fc1(block.norm2(expected))))
    assert torch.allclose(block(x), expected)


def test_patches_are_cut_row_by_row() -> None:
    network = tiny()
    x = torch.randn(1, 3, 32, 64).double()
    patches = [x[..., i : i + 8, j : j + 8] for i in range(0, 32, 8) for j in range(0, 64, 8)]
    embedded = [network.patches.embedding(one).mean((2, 3)) for one in patches]
    other = tiny(image_size=(32, 64)).patches
    with torch.no_grad():
        zeros = torch.zeros_like(other.positions)
        other.load_state_dict({**network.patches.state_dict(), "positions": zeros})
        tokens = torch.stack([network.patches.class_token[0], *embedded], 1)
        assert torch.allclose(other(x), other.blocks(tokens))


def test_the_table_of_positions_is_interpolated() -> None:
    network, other = tiny(image_size=64), tiny(image_size=(32, 64))
    state = network.state_dict()
    name = "patches.positions"
    table = torch.linspace(0, 1, 8).double()[:, None].expand(8, 8)
    state[name][1:] = table.reshape(64, 1)
    rows = torch.linspace(0, 1, 4).double()[:, None].expand(4, 8).reshape(32, 1).expand(32, 8)
    other.load_state_dict({**state, name: torch.cat([state[name][:1], rows])})
    x = torch.randn(1, 3, 32, 64).double()
    assert torch.allclose(network(x).logits, other(x).logits)


def test_detail_reaches_the_released_mask_through_the_boundary_alone() -> None:
    x, tokens = torch.randn(1, 4, 32, 32).double(), torch.randn(1, 17, 8).double()
    for form in ("paper", "released"):
        network = tiny(form=form)
        with torch.no_grad():
            network.boundary[-1].weight.zero_()
            logits = network.attended(x, tokens, (4, 4), False).logits
        patches = logits.unflatten(3, (4, 8)).unflatten(2, (4, 8))
        constant = torch.equal(patches, patches[:, :, :, :1, :, :1].expand_as(patches))
        assert constant == (form == "released")
        assert network.excitation(x).shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "printed"}, "paper or released"),
        ({"hidden": 6}, "4 and heads divide"),
        ({"heads": 3}, "4 and heads divide"),
        ({"patch_size": 12}, "8, 16 or 32"),
        ({"image_size": (64, 60)}, "8, divides"),
        ({"encoder": "test_efficientnet"}, "such as resnet34"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("tmunet", **{**TINY, **options})
