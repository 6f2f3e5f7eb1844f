"""Killed at any point, stopped, or out of disk: the training goes on and ends with the same
weights.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from segweave.data.store import Store
from segweave.errors import InputError
from segweave.recipes import Recipe
from segweave.registry import register_plugin
from segweave.training import Run, train
from segweave.training.session import TrainingSession
from tests.training import toy

EMBEDDED = {
    # Dropout acts in the released form of this module.
    "context": {"name": "sa-embedded-lstm", "form": "released", "options": {"attention_size": 16}},
    "input__slices": 3,
    "training__checkpoint_every": 2,
    "training__checkpoint": "best",
    "training__channels_last": True,
}


EVERYTHING = {
    "network": {"name": "toy-feedback"},
    "training__epochs": 4,
    "training__accumulate": 2,  # steps begin in the middle of a batch's scales
    "training__scales": [0.75, 1, 1.25],
    "training__average": {"decay": 0.8},
    "training__patience": 7,
    "training__checkpoint": "best",
    "training__checkpoint_every": 2,
    "training__gradient_clip": 1.0,
    "training__optimiser": {
        "name": "sgd",
        "rate": 0.3,
        "groups": [{"match": "*.classifier.*", "rate": 0.1, "weight_decay": 0}],
    },
    "training__loss": [
        {"name": "structure", "options": {"window": 5}},
        {"name": "dice", "output": ["logits", "half"]},
        {"name": "mutation", "options": {"outputs": ["logits", "half"]}},
    ],
    "training__augmentation": [
        {"name": "geometry", "options": {"rotation": 40, "mirror": "both"}},
        {"name": "elastic", "probability": 0.5},
        {"name": "brightness", "probability": 0.7},
        {"name": "contrast", "probability": 0.5},
        {"name": "gamma", "probability": 0.5},
        {"name": "blur", "probability": 0.5},
        {"name": "noise", "probability": 0.7},
    ],
}


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Real processes that have imported everything already, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["lightning.pytorch", "torch.utils.tensorboard", "segweave.training.run_training"]
    )
    return context


class Started:
    """A training in a separate process."""

    def __init__(
        self,
        processes: multiprocessing.context.ForkServerContext,
        store: Store,
        out: Path,
        recipe: Recipe,
        file_limit: int | None = None,
    ) -> None:
        self.messages = out.parent / "messages.txt"
        self.messages.unlink(missing_ok=True)
        self.process = processes.Process(
            target=toy.train_process, args=(store.path, out, recipe, self.messages, file_limit)
        )
        self.process.start()

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Poll until it happened or the training ended."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            if happened():
                return True
            if not self.process.is_alive():
                return False
        raise AssertionError("nothing happened in a minute")

    def signal(self, number: int) -> None:
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, number)

    def end(self) -> int:
        self.process.join(60)
        assert self.process.exitcode is not None
        return self.process.exitcode


def rows(out: Path) -> int:
    try:
        return (out / "metrics.csv").read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return 0


def names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def kill_points(out: Path) -> dict[str, Callable[[], bool]]:
    """What a kill waits for; each is looked for in a process that resumed after the one before."""
    checkpoints, model = out / "checkpoints", out / "model"
    return {
        "before anything is saved": lambda: rows(out) >= 1,
        "in the middle of an epoch": lambda: rows(out) >= 8,
        "while a checkpoint is written": lambda: any(
            name.startswith(".writing-") for name in names(checkpoints)
        ),
        "between the best and the last checkpoint": lambda: (
            "best.ckpt" in names(checkpoints) and rows(out) >= 15
        ),
        "late": lambda: rows(out) >= 24,
        "before the model card": lambda: "weights.safetensors" in names(model),
    }


def timeless(run: Run) -> list[dict[str, float]]:
    """The rows of metrics.csv without what a clock says."""
    kept = ("step", "epoch", "loss", "rate", "validation_dice")
    return [{name: row[name] for name in kept if name in row} for row in run.metrics]


def assert_equal_runs(run: Run, other: Run) -> None:
    weights, others = run.weights(), other.weights()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for name in ("last", "best"):
        one = torch.load(run.checkpoints[name], weights_only=True)
        two = torch.load(other.checkpoints[name], weights_only=True)
        assert one["step"] == two["step"]
        assert all(torch.equal(one["network"][key], two["network"][key]) for key in weights)
        for a, b in zip(
            one["optimiser"]["state"].values(), two["optimiser"]["state"].values(), strict=True
        ):
            assert all(torch.equal(a[key], b[key]) for key in a)
        for extra in ("average", "masks"):
            assert (one[extra] is None) == (two[extra] is None)
            assert all(torch.equal(one[extra][key], two[extra][key]) for key in one[extra] or ())
    assert timeless(run) == timeless(other)
    assert run.model_card == other.model_card


@pytest.fixture(scope="module")
def uninterrupted(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)  # the number of threads decides the last bits
    out = tmp_path_factory.mktemp("whole") / "run"
    return train(toy.recipe(**EMBEDDED), store, out, score=toy.score)


@pytest.fixture(scope="module")
def everything(binary_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("everything") / "run"
    with toy.feedback_network_registered():  # this fixture outlives the test that starts it
        return train(toy.recipe(**EVERYTHING), binary_store, out, score=toy.score)


@pytest.mark.slow
def test_killed_with_everything_on_it_ends_with_the_same_weights(
    processes: multiprocessing.context.ForkServerContext,
    binary_store: Store,
    out: Path,
    everything: Run,
) -> None:
    killed = 0
    for wanted in (3, 9, 10, 17):
        started = Started(processes, binary_store, out, everything.recipe)
        started.wait_for(lambda count=wanted: rows(out) >= count)
        started.signal(signal.SIGKILL)
        killed += started.end() == -signal.SIGKILL
    assert killed >= 3
    assert Started(processes, binary_store, out, everything.recipe).end() == 0
    assert_equal_runs(Run(out), everything)


@pytest.mark.parametrize("stop", [1, 3, 6, 7, 11])
def test_stopped_with_everything_on_it_goes_on_alike(
    binary_store: Store,
    out: Path,
    everything: Run,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    register_plugin(toy.FEEDBACK_NETWORK)
    before_step = TrainingSession.before_step

    def failing(session: TrainingSession, optimiser: torch.optim.Optimizer) -> None:
        if session.step == stop:
            raise ZeroDivisionError
        before_step(session, optimiser)

    monkeypatch.setattr(TrainingSession, "before_step", failing)
    with pytest.raises(ZeroDivisionError):
        train(everything.recipe, binary_store, out, score=toy.score)
    monkeypatch.undo()
    torch.manual_seed(99)
    again = train(everything.recipe, binary_store, out, score=toy.score)
    assert again.environment["sessions"][1]["from_step"] == stop - stop % 2
    assert_equal_runs(again, everything)


@pytest.mark.slow
def test_killed_at_many_points_it_ends_with_the_same_weights(
    processes: multiprocessing.context.ForkServerContext,
    store: Store,
    out: Path,
    uninterrupted: Run,
) -> None:
    killed = []
    for point, happened in kill_points(out).items():
        started = Started(processes, store, out, uninterrupted.recipe)
        started.wait_for(happened)
        started.signal(signal.SIGKILL)
        if started.end() == -signal.SIGKILL:
            killed.append(point)
        else:
            assert Run(out).finished, point
        for name in names(out / "checkpoints"):
            if name.endswith(".ckpt") and not name.startswith("."):
                torch.load(out / "checkpoints" / name, weights_only=True)  # whole
    assert len(killed) >= 4, killed
    assert Started(processes, store, out, uninterrupted.recipe).end() == 0
    run = Run(out)
    assert [row["step"] for row in run.metrics] == list(range(1, 31))
    assert len(run.environment["sessions"]) >= len(killed)
    assert not list(out.rglob(".*"))
    assert_equal_runs(run, uninterrupted)


@pytest.mark.parametrize(("stop", "every"), [(1, 1), (4, 3), (5, None), (8, 1), (9, None)])
def test_stopped_before_any_step_the_loss_goes_on_alike(
    store: Store,
    out: Path,
    uninterrupted: Run,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    every: int | None,
) -> None:
    recipe = toy.recipe(**{**EMBEDDED, "training__epochs": 2, "training__checkpoint_every": every})
    before_step = TrainingSession.before_step

    def failing(session: TrainingSession, optimiser: torch.optim.Optimizer) -> None:
        if session.step == stop:
            raise ZeroDivisionError
        before_step(session, optimiser)

    whole = train(recipe, store, out.parent / "whole", score=toy.score)
    monkeypatch.setattr(TrainingSession, "before_step", failing)
    with pytest.raises(ZeroDivisionError):
        train(recipe, store, out, score=toy.score)
    monkeypatch.undo()
    torch.manual_seed(99)  # the state outside must not matter
    again = train(recipe, store, out, score=toy.score)
    saved = stop - stop % (every or 5)
    assert again.environment["sessions"][1]["from_step"] == max(saved, stop - stop % 5)
    assert_equal_runs(again, whole)


def test_ctrl_c_saves_says_so_and_is_resumed(
    processes: multiprocessing.context.ForkServerContext,
    store: Store,
    out: Path,
    uninterrupted: Run,
) -> None:
    started = Started(processes, store, out, uninterrupted.recipe)
    assert started.wait_for(lambda: rows(out) >= 3)
    started.signal(signal.SIGINT)
    assert started.end() == 130
    message = started.messages.read_text()
    assert message.startswith("TrainingStoppedError: training was stopped")
    assert str(out) in message
    step = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["step"]
    assert f"{step} optimiser steps are done and saved" in message
    assert not list(out.rglob(".writing-*"))
    assert not Run(out).finished
    with pytest.raises(InputError, match=f"reached step {step}"):
        Run(out).model_card  # noqa: B018
    assert Started(processes, store, out, uninterrupted.recipe).end() == 0
    assert_equal_runs(Run(out), uninterrupted)


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    processes: multiprocessing.context.ForkServerContext,
    store: Store,
    out: Path,
    uninterrupted: Run,
) -> None:
    size = uninterrupted.checkpoints["last"].stat().st_size
    started = Started(processes, store, out, uninterrupted.recipe, file_limit=size // 2)
    assert started.end() == 1
    message = started.messages.read_text()
    assert "writing a" in message
    assert "free some space" in message
    assert not list(out.rglob(".writing-*"))
    assert names(out / "checkpoints") == set()
    assert Started(processes, store, out, uninterrupted.recipe).end() == 0
    assert_equal_runs(Run(out), uninterrupted)


def test_two_trainings_in_one_folder_are_refused(
    processes: multiprocessing.context.ForkServerContext, store: Store, out: Path
) -> None:
    recipe = toy.recipe(training__epochs=40)
    started = Started(processes, store, out, recipe)
    assert started.wait_for(lambda: rows(out) >= 1)
    second = Started(processes, store, out, recipe)
    assert second.end() == 2
    assert "another process is writing" in second.messages.read_text()
    started.signal(signal.SIGKILL)
    started.end()


def test_a_checkpoint_of_another_network_is_refused(store: Store, out: Path) -> None:
    def stop(*_: object) -> dict[str, float]:
        raise ZeroDivisionError

    recipe = toy.recipe(training__checkpoint_every=1)
    with pytest.raises(ZeroDivisionError):
        train(recipe, store, out, score=stop)
    last = out / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["network"]["network.classifier.weight"] = torch.zeros(1)
    torch.save(content, last)
    with pytest.raises(InputError, match=r"network\.classifier\.weight is 1, not 3 × 2"):
        train(recipe, store, out, score=toy.score)
    last.write_bytes(b"half a file")
    with pytest.raises(InputError, match="reading a checkpoint"):
        train(recipe, store, out, score=toy.score)
    torch.save({"format": 1, "code": os.system}, last)
    with pytest.raises(InputError, match="reading it safely"):
        train(recipe, store, out, score=toy.score)
