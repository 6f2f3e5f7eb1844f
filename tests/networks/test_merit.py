"""MERIT from its paper: MaxViT against timm's, the parts of the decoder, what the outputs are, and
the printed size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segweave import registry
from segweave.backbones.maxvit import MaxViT
from segweave.blocks.cascade import AttentionGate, CascadeDecoder, ConvolutionalAttention
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.networks.base import Output
from segweave.networks.merit import OUTPUTS, second_size
from segweave.recipes.recipe import LossTerm
from segweave.training.losses.cross_entropy import CrossEntropyLoss
from segweave.training.losses.dice import DiceLoss
from segweave.training.objective import WeightedLoss

timm = pytest.importorskip("timm")
TINY = registry.networks.card("merit").tiny_options
OF_TIMM = {
    "embed_dim": (8, 8, 16, 16),
    "stem_width": (8, 8),
    "depths": (1, 1, 1, 1),
    "transformer_dim_head": 8,
    "transformer_rel_pos_dim": 16,
}


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5 if name.endswith("var") else -0.5, 1)
    return module.double().eval()


@pytest.mark.parametrize("size", [(256, 256), (224, 224), (64, 128)])
def test_the_backbone_is_timms(size: tuple[int, int]) -> None:
    ours = randomised(MaxViT("maxvit_rmlp_small_rw_224", 3, **OF_TIMM))
    theirs = timm.create_model(
        "maxvit_rmlp_small_rw_224", features_only=True, img_size=size, **OF_TIMM
    )
    theirs = theirs.double().eval()
    weights = {k.replace("stages.", "stages_"): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(weights)
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for one, other in zip(ours(x), theirs(x)[1:], strict=True):
            # timm keeps the distances in float32.
            assert (one - other).abs().max() <= 1e-6 * other.abs().max()


def test_both_backbones_load_by_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    model = timm.create_model("maxvit_rmlp_small_rw_224", **OF_TIMM)
    save_file(model.state_dict(), file)
    given = f"imagenet:encoders.0={file},encoders.1={file}"
    network = create_network("merit", **TINY, in_channels=1, pretrained=given)
    for encoder in network.encoders:
        for name, tensor in encoder.state_dict().items():
            if name != "stem.conv1.weight":  # adapted to one channel
                assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.slow
def test_the_printed_size() -> None:
    # The source papers print 146.51 M parameters and 28.32 G for an image of 3×256×256.
    with torch.device("meta"):
        network = create_network("merit", classes=9)
        apart = create_network("merit", classes=9, shared_decoder=False)
    assert sum(p.numel() for p in network.parameters()) == 146_147_550
    assert sum(p.numel() for p in apart.parameters()) == 164_045_951
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(146.51e6, rel=0.003)


@pytest.mark.parametrize(
    ("size", "second"),
    [
        ((256, 256), (224, 224)),
        ((512, 256), (448, 224)),
        ((64, 32), (32, 32)),
        ((224, 96), (192, 64)),
    ],
)
def test_the_second_scale(size: tuple[int, int], second: tuple[int, int]) -> None:
    assert second_size(size) == second


@pytest.mark.parametrize("shared_decoder", [True, False])
@pytest.mark.parametrize("join", ["add", "concatenate"])
@pytest.mark.parametrize("cascaded", [True, False])
def test_the_logits_are_the_sum_of_the_outputs(
    cascaded: bool, join: str, shared_decoder: bool
) -> None:
    torch.manual_seed(0)
    network = create_network(
        "merit", classes=3, cascaded=cascaded, join=join, shared_decoder=shared_decoder, **TINY
    )
    output = network(torch.randn(2, 3, 96, 64))
    assert tuple(output.auxiliary) == OUTPUTS
    assert all(one.shape == (2, 3, 96, 64) for one in output.auxiliary.values())
    assert torch.allclose(output.logits, sum(output.auxiliary.values()), atol=1e-6)


def test_the_cascade_feeds_the_first_decoder_back() -> None:
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.manual_seed(0)
    cascaded = create_network("merit", **TINY).double().eval()
    parallel = create_network("merit", cascaded=False, **TINY).double().eval()
    weights = {k: v for k, v in cascaded.state_dict().items() if not k.startswith("gate.")}
    parallel.load_state_dict(weights)
    with torch.no_grad():
        cascaded.gate.weight.zero_()
        cascaded.gate.bias.fill_(100)  # a gate that is open everywhere
    assert torch.allclose(cascaded(x).logits, parallel(x).logits)
    with torch.no_grad():
        cascaded.gate.bias.fill_(-1)
    assert not torch.allclose(cascaded(x).logits, parallel(x).logits)


def test_mutation_sums_over_fifteen_combinations() -> None:
    torch.manual_seed(0)
    target = TargetSpec(names=("background", "one", "two"))
    network = create_network("merit", classes=3, **TINY).train()
    output: Output = network(torch.randn(2, 3, 64, 64))
    label = torch.randint(0, 3, (2, 64, 64))
    expected = 0.0
    maps = list(output.auxiliary.values())
    for bits in range(1, 16):
        total = sum(one for k, one in enumerate(maps) if bits >> k & 1)
        expected += 0.3 * CrossEntropyLoss(target)(total, label).item()
        expected += 0.7 * DiceLoss(target)(total, label).item()
    value = WeightedLoss((LossTerm(name="mutation"),), target)(output, label)
    assert value.item() == pytest.approx(expected)
    value.backward()
    # Two separate gradients: of the sum, and through what the first decoder feeds back.
    assert network.gate.weight.grad.any()


def test_a_gate_weighs_positions() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(8).double().eval()
    signal, skip = torch.randn(2, 2, 8, 4, 5, dtype=torch.float64)
    ratio = gate(signal, skip) / skip
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


def test_the_attention_reads_channels_then_places() -> None:
    torch.manual_seed(0)
    block = ConvolutionalAttention(32, 8).double().eval()
    block.body = nn.Identity()
    x = torch.rand(1, 32, 6, 6, dtype=torch.float64)
    ratio = block(x) / x
    # One weight per channel times one per position.
    assert torch.linalg.matrix_rank(ratio[0].flatten(1), tol=1e-9) == 1


def test_the_decoder_returns_the_encoders_shapes() -> None:
    decoder = CascadeDecoder((4, 8, 16), join="concatenate")
    maps = [torch.randn(2, c, 2 * s, s) for c, s in ((4, 16), (8, 8), (16, 4))]
    assert [one.shape for one in decoder(maps)] == [one.shape for one in reversed(maps)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"join": "multiply"}, "concatenate"),
        ({"widths": (8, 8, 16)}, "four widths"),
        ({"head_width": 3}, "head_width"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("merit", **{**TINY, **options})
