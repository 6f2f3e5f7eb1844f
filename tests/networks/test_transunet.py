"""TransUNet against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of

FILES = files_of("transunet")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        "transunet", in_channels=spec["input_shape"][1], classes=spec["num_classes"]
    )


def test_the_reference_files_are_here() -> None:
    assert "transunet" in FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()
