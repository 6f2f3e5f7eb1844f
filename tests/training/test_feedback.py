"""The masks that a network with feedback is given."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from segweave.data.batches import Batch, Batches
from segweave.data.cache import Resized
from segweave.data.store import Store
from segweave.errors import UsageError
from segweave.networks.base import Output, mask_of
from segweave.registry import register_plugin
from segweave.training.feedback import MaskMemory
from tests.training import toy
from tests.training.feedback_network import ToyFeedback, bright

Key = tuple[str, int]


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_plugin(toy.FEEDBACK_NETWORK)


def visits(
    store: Store, out: Path, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> dict[Key, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """(image, mask given, mask predicted) of each visit of each sample."""
    seen: dict[Key, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}
    write = MaskMemory.write

    def watched(self: MaskMemory, batch: Batch, output: Output) -> None:
        predicted = mask_of(output, exclusive=False)
        for row, key in enumerate(batch.keys):
            assert batch.masks is not None
            visit = (batch.image[row], batch.masks[row], predicted[row])
            seen.setdefault(key, []).append(visit)
        write(self, batch, output)

    monkeypatch.setattr(MaskMemory, "write", watched)
    toy.run_of(store, out, network={"name": "toy-feedback"}, training__epochs=3, **changes)
    return seen


def test_each_sample_is_given_the_mask_of_its_last_visit(
    binary_store: Store, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = visits(binary_store, out, monkeypatch, training__augmentation={})
    assert len(seen) == 20
    for rounds in seen.values():
        assert len(rounds) == 3
        assert torch.equal(rounds[0][1][0], bright(rounds[0][0])[0])
        for before, after in itertools.pairwise(rounds):
            assert torch.equal(after[1][0], before[2])
    predicted = torch.cat([visit[2] for rounds in seen.values() for visit in rounds])
    assert 0 < predicted.mean() < 1


def test_masks_move_with_the_images(
    binary_store: Store, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmentation = {"mirror": "both", "rot90": True}
    seen = visits(binary_store, out, monkeypatch, training__augmentation=augmentation)
    batches = Batches(
        Resized(binary_store, toy.recipe().input, binary_store.splits["toy"]["train"]),
        batch_size=4,
        seed=0,
    )
    turned = 0
    for key, rounds in seen.items():
        plain = batches.batch([key], 0).image[0]
        kept = bright(plain)[0]
        for image, given, predicted in rounds:
            # The one reflection under which the plain image is the augmented one.
            moves = [
                (quarter, flip)
                for quarter in range(4)
                for flip in (False, True)
                if torch.equal(move(plain[0], quarter, flip), image[0])
            ]
            assert len(moves) == 1
            turned += moves[0] != (0, False)
            assert torch.equal(given[0, 0], move(kept, *moves[0])[0])
            quarter, flip = moves[0]
            back = predicted.flip(-1) if flip else predicted
            kept = torch.rot90(back, -quarter, (-2, -1))
    assert turned > 30


def move(maps: torch.Tensor, quarter: int, flip: bool) -> torch.Tensor:
    moved = torch.rot90(maps, quarter, (-2, -1))
    return moved.flip(-1) if flip else moved


def test_neighbours_have_masks_too_and_pixels_not_shown_keep_theirs(binary_store: Store) -> None:
    spec = toy.recipe(input__slices=3).input
    batches = Batches(
        Resized(binary_store, spec, binary_store.splits["toy"]["train"]), batch_size=4, seed=0
    )
    memory = MaskMemory(ToyFeedback().feedback, batches, exclusive=False)
    case = batches.samples[0][0]
    keys = [(case, 0), (case, 1)]
    batch = batches.batch(keys, 0, memory.read)
    assert batch.masks is not None
    assert batch.masks.shape == (2, 3, 1, 16, 16)
    for row in range(2):
        assert torch.equal(batch.masks[row], bright(batch.image[row]))
    logits = torch.ones(2, 1, 16, 16)
    logits[1] = -1
    memory.write(batch, Output(logits, {}))
    again = batches.batch([(case, 1)], 0, memory.read)
    assert again.masks is not None
    assert (again.masks[0, 0] == 1).all()  # slice 0
    assert (again.masks[0, 1] == 0).all()  # slice 1
    assert torch.equal(again.masks[0, 2:], bright(again.image[0, 2:]))  # not visited
    state = {name: value.clone() for name, value in memory.state().items()}
    other = MaskMemory(ToyFeedback().feedback, batches, exclusive=False)
    other.restore(state)
    restored = batches.batch([(case, 1)], 0, other.read)
    assert restored.masks is not None
    assert torch.equal(restored.masks, again.masks)


def test_tiles_are_refused(binary_store: Store, out: Path) -> None:
    changes: dict[str, Any] = {
        "network": {"name": "toy-feedback"},
        "input": {"size": [8, 8], "fit": "tile"},
        "data__validation": None,
    }
    with pytest.raises(UsageError, match="fit: tile"):
        toy.run_of(binary_store, out, **changes)
    assert not out.exists()
