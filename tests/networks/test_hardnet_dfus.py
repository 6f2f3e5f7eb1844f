"""HarDNet-DFUS against the released numbers, and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segweave.backbones.kingnet import STAGES, KingBlock, KingNet
from segweave.blocks.large_window import LargeWindowAttention
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("hardnet-dfus")
TINY: dict[str, Any] = {
    "width": 2,
    "embedding": 8,
    "boundary": 6,
    "decoder_channels": 16,
    "heads": (4, 2, 1),
}


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("hardnet-dfus", classes=spec["num_classes"])


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    return [output.logits, *output.auxiliary.values()]


def agreement(name: str, *, gradients: bool) -> Agreement:
    return Agreement(
        name,
        build,
        torch.float64,
        gradients=gradients,
        outputs=outputs,
        auxiliary=name.endswith("training"),
    )


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"hardnet-dfus", "hardnet-dfus@128x192", "hardnet-dfus@training"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    # The gradient of the training file is that of all outputs; the others test a further size.
    agreement(name, gradients=name.endswith("training")).assert_agrees()


@pytest.mark.slow
def test_the_released_names_are_complete() -> None:
    spec = read_spec("hardnet-dfus@training")
    network, report = matched("hardnet-dfus@training", build)
    assert set(report.dead) == set(spec["parameters_without_gradient"])
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    assert sum(p.numel() for p in network.parameters()) == spec["parameter_count_used"]


def test_every_channel_of_a_king_block_is_used_once() -> None:
    widths = []
    for spec in STAGES:
        block = KingBlock(spec.layers, spec.growth, spec.kept)
        inputs = [layer[0].in_channels for layer in block.layers]
        assert inputs == [layer[0].out_channels for layer in block.layers]
        maps = [block.in_channels, *inputs[:-1]]
        assert sum(maps) == sum(inputs)
        widths.append((block.in_channels, inputs[-1], block.out_channels))
    # In units of the width: 60, 120, 240, 540, 800 and 140, 280, 720, 1260, 1200 of the paper.
    assert widths == [(3, 3, 7), (6, 6, 14), (12, 12, 36), (27, 27, 63), (40, 40, 60)]


@pytest.mark.parametrize(("ratio", "heads"), [(8, 4), (4, 2), (2, 1)])
def test_the_attention_window_by_window(ratio: int, heads: int) -> None:
    """One convolution for all windows equals cutting each region out and convolving it."""
    torch.manual_seed(0)
    channels, inner = 16, 8
    layer = LargeWindowAttention(channels, ratio, heads).double().eval()
    nn.init.ones_(layer.out[1].weight)
    x = torch.randn(2, channels, 16, 24, dtype=torch.float64)
    border = (8 * ratio - 8) // 2
    padded = nn.functional.pad(x, (border,) * 4)
    expected = torch.zeros_like(x)
    for row in range(0, 16, 8):
        for column in range(0, 24, 8):
            window = x[:, :, row : row + 8, column : column + 8]
            region = padded[:, :, row : row + 8 * ratio, column : column + 8 * ratio]
            context = layer.patches(region).movedim(1, -1)
            context = layer.norm(context).movedim(-1, 1).flatten(2)
            parts = [
                part + mixing(part)
                for part, mixing in zip(context.chunk(heads, 1), layer.mixing, strict=True)
            ]
            context = torch.cat(parts, 1).unflatten(2, (8, 8))
            q, k, v = (
                one(source).flatten(2).unflatten(1, (heads, inner // heads)).mT
                for one, source in (
                    (layer.query, window),
                    (layer.key, context),
                    (layer.value, context),
                )
            )
            weights = (q @ k.mT / (inner // heads) ** 0.5).softmax(-1)
            attended = (weights @ v).mT.flatten(1, 2).unflatten(2, (8, 8))
            place = (..., slice(row, row + 8), slice(column, column + 8))
            expected[place] = window + layer.out(attended)
    assert torch.allclose(layer(x), expected, atol=1e-12)


def test_an_attention_branch_starts_as_the_identity() -> None:
    layer = LargeWindowAttention(8, 2, 2).eval()
    x = torch.randn(1, 8, 8, 16)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("size", [(32, 47), (75, 101)])
def test_any_size_works(size: tuple[int, int]) -> None:
    network = create_network("hardnet-dfus", in_channels=2, classes=3, **TINY).eval()
    output = network(torch.randn(1, 2, *size), auxiliary=True)
    shapes = {name: tuple(one.shape) for name, one in output.auxiliary.items()}
    assert shapes == {
        "deep-1": (1, 3, *size),
        "deep-2": (1, 3, *size),
        "boundary": (1, 6, *size),
    }
    assert output.logits.shape == (1, 3, *size)


def test_the_backbone_takes_a_file_under_the_authors_names(tmp_path: Path) -> None:
    backbone = KingNet(width=2)
    names = backbone.released_names()
    weights = {names.tensors[ours]: tensor for ours, tensor in backbone.state_dict().items()}
    weights |= {name: torch.zeros(1) for name in sorted(names.dead)}
    file = tmp_path / "kingnet.pth"
    torch.save(weights, file)
    network = create_network("hardnet-dfus", pretrained=f"imagenet:{file}", **TINY)
    for ours, tensor in backbone.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[ours], tensor)
    assert network.pretrained is not None
    assert set(network.pretrained.unused) == names.dead
    with pytest.raises(UsageError, match="imagenet:FILE"):
        create_network("hardnet-dfus", pretrained="imagenet", **TINY)


@pytest.mark.parametrize(
    "options", [{"width": 3}, {"decoder_channels": 15}, {"heads": (3, 2, 1)}, {"width": 0}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="even width"):
        create_network("hardnet-dfus", **{**TINY, **options})
