"""A run that has not ended predicts from its checkpoints, and is not refused without a reason."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import segweave
from segweave.data.store import Store
from segweave.errors import InputError, UsageError
from segweave.runs.run_folder import Run


@pytest.fixture
def begun(run: Run) -> Run:
    shutil.rmtree(run.model)
    return run


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_a_checkpoint_of_a_run_that_goes_on_predicts_as_after_its_end(
    begun: Run, made, checkpoint: str
) -> None:
    store = Store(made / "store")
    case = store.case(next(iter(store.ids)))
    predictor = segweave.load(begun.folder, checkpoint=checkpoint, device="cpu")
    ended = segweave.load(made / "run", checkpoint=checkpoint, device="cpu")
    assert predictor.target == ended.target == store.target
    expected = segweave.predict(ended, case, probabilities=True).probabilities
    found = segweave.predict(predictor, case, probabilities=True).probabilities
    np.testing.assert_array_equal(found, expected)
    assert "not ended" in predictor.card["title"]


def test_a_run_of_an_earlier_version_gets_its_classes_from_its_store(begun: Run, made) -> None:
    environment = json.loads(begun.layout.environment.read_text())
    target = environment["data"].pop("target")
    begun.layout.environment.write_text(json.dumps(environment))
    predictor = segweave.load(begun.folder, checkpoint="last", device="cpu")
    assert list(predictor.target.names) == target["names"]
    environment["data"]["checksum"] = "other"
    begun.layout.environment.write_text(json.dumps(environment))
    with pytest.raises(InputError, match="put the store back"):
        segweave.load(begun.folder, checkpoint="last", device="cpu")


def test_without_a_checkpoint_the_message_names_those_that_there_are(begun: Run) -> None:
    with pytest.raises(InputError, match="--checkpoint last") as raised:
        segweave.load(begun.folder, device="cpu")
    assert "best and last" in str(raised.value)
    with pytest.raises(UsageError, match="did you mean best"):
        segweave.load(begun.folder, checkpoint="bets", device="cpu")
    shutil.rmtree(begun.layout.checkpoints)
    with pytest.raises(UsageError, match="train first"):
        segweave.load(begun.folder, checkpoint="last", device="cpu")
