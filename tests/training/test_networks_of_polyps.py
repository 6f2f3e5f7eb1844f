"""PraNet, SANet, FANet and HarDNet-DFUS train with the terms of their published losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segweave import registry
from segweave.data.store import Store
from tests.training import toy

STRUCTURE = {"name": "structure", "options": {"released": True}}
BOUNDARY = {"of": "boundary", "released": True}
LOSSES: dict[str, list[dict[str, Any]]] = {
    # The sum over four maps.
    "pranet": [{**STRUCTURE, "output": ["logits", "global", "stage-4", "stage-3"]}],
    "sanet": [{"name": "cross-entropy"}, {"name": "dice"}],
    # Half cross-entropy, half one minus the soft Dice of the batch.
    "fanet": [
        {"name": "cross-entropy", "weight": 0.5},
        {"name": "tversky", "weight": 0.5, "options": {"alpha": 0.5, "beta": 0.5, "smooth": 0.5}},
    ],
    "hardnet-dfus": [
        {"name": "structure", "output": ["logits", "deep-1", "deep-2"]},
        {"name": "boundary", "output": "boundary", "options": BOUNDARY},
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("context", [None, "sa-lstm"])
@pytest.mark.parametrize("name", LOSSES)
def test_trains_with_its_published_loss(
    name: str, context: str | None, binary_store: Store, out: Path
) -> None:
    if name in ("pranet", "sanet"):
        pytest.importorskip("timm")
    network = {"name": name, "options": registry.networks.card(name).tiny_options}
    woven: dict[str, Any] = {"context": {"name": context}, "input__slices": 3} if context else {}
    run = toy.run_of(
        binary_store,
        out,
        network=network,
        input__size=[32, 32],
        training__loss=LOSSES[name],
        training__batch_size=4,
        training__epochs=2,
        **woven,
    )
    losses = [row["loss"] for row in run.metrics]
    assert losses[-1] < losses[0]
