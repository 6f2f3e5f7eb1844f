"""A woven network as a whole: exported, trained a step, in half precision, saved and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segweave.context import list_contexts
from segweave.networks import create_network
from segweave.weaving import POSITIONS, WovenNetwork, weave


def woven(at: str = "bottleneck", context: str = "sa-lstm", **settings) -> WovenNetwork:
    torch.manual_seed(0)
    network = create_network("unet", in_channels=1, classes=3, width=4, levels=3)
    return weave(network, context, at=at, **settings)


@pytest.mark.parametrize("at", [*POSITIONS, "decoder.0"])
def test_export(at: str) -> None:
    settings = {"channels": 8} if "." in at else {}
    made = woven(at, **settings).eval()
    window = torch.rand(2, 3, 1, 16, 16)
    exported = torch.export.export(made, (window,)).module()
    other = torch.rand(2, 3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(exported(other).logits, made(other).logits)


@pytest.mark.parametrize("context", list_contexts())
def test_every_module_trains_at_every_position(context: str) -> None:
    window = torch.rand(2, 3, 1, 16, 16)
    for at in POSITIONS:
        made = woven(at, context).train()
        made(window).logits.square().mean().backward()
        added = {n: p for n, p in made.named_parameters() if not n.startswith("network.")}
        missing = [name for name, p in added.items() if p.grad is None]
        assert not missing, (at, missing)
        assert sum(p.numel() for p in added.values()) == made.parameters_added


def test_bfloat16_autocast() -> None:
    made, window = woven("skips").eval(), torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = made(window).logits
        apart = made.fuse([made.prepare(x) for x in window.unbind(1)]).logits
    with torch.no_grad():
        full = made(window).logits
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.05)
    torch.testing.assert_close(apart.float(), full, rtol=0.1, atol=0.05)


def test_weights_in_a_file(tmp_path: Path) -> None:
    first = woven("encoder").eval()
    save_file(first.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(5)
    network = create_network("unet", in_channels=1, classes=3, width=4, levels=3)
    second = weave(network, "sa-lstm", at="encoder").eval()
    second.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    window = torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(first(window).logits, second(window).logits)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (16, 32)])
def test_any_batch_and_size(batch: int, size: tuple[int, int]) -> None:
    for at in POSITIONS:
        with torch.no_grad():
            assert woven(at).eval()(torch.rand(batch, 3, 1, *size)).logits.shape == (
                batch,
                3,
                *size,
            )
