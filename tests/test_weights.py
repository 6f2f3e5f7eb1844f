"""Weights are read as tensors alone: a file that would run code is refused and nothing runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segweave.errors import InputError
from segweave.weights import load_weights, read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[k], WEIGHTS[k]) for k in found)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.pth", WEIGHTS),
        ("nested.ckpt", {"state_dict": WEIGHTS, "epoch": 3}),
        ("model.pt", {"model": WEIGHTS}),
    ],
)
def test_torch_files(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / name)
    assert same(read_weights(tmp_path / name))


def test_safetensors_files(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"))


class _RunsCode:
    """What an attacker would put into a checkpoint: it makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    marker, path = tmp_path / "it-ran", tmp_path / "evil.pth"
    content = {"a": _RunsCode(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"evil\.pth[\s\S]*safetensors"):
        read_weights(path)
    assert not marker.exists()


def test_missing_damaged_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing there"):
        read_weights(tmp_path / "absent.pth")
    torch.save(WEIGHTS, tmp_path / "cut.pth")
    data = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.pth"):
        read_weights(tmp_path / "cut.pth")
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(InputError, match=r"text\.safetensors"):
        read_weights(tmp_path / "text.safetensors")


def test_a_safetensors_header_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes((1 << 42).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match=r"huge\.safetensors"):
        read_weights(path)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, torch.ones(2)])
def test_content_that_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="a state dict"):
        read_weights(tmp_path / "odd.pth")


def linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def test_weights_that_fit_are_copied() -> None:
    source, network = linear(), linear()
    load_weights(network, source.state_dict(), "loading")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, "0.bias is missing"),
        ({"2.bias": torch.ones(1)}, "2.bias is not part of it"),
        ({"0.weight": torch.ones(3, 2)}, "0.weight is 3 × 2, not 2 × 3"),
        ({"1.num_batches_tracked": torch.ones(1)}, "is 1, not a single number"),
        ({"0.bias": torch.tensor([1.0, float("nan")])}, "NaN or infinite ones in 0.bias"),
        (
            {"0.weight": None, "0.bias": None, "a": torch.ones(1), "b": torch.ones(1)},
            "0.weight is missing; 0.bias is missing; a is not part of it (and 1 more)",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    change: dict[str, torch.Tensor | None], words: str
) -> None:
    network = linear()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = {**linear().state_dict(), **change}
    given = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(InputError) as caught:
        load_weights(network, given, "loading", file="w.safetensors", title="mine")
    assert words in str(caught.value)
    assert caught.value.file == Path("w.safetensors")
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
