"""Accumulation, averages, several scales, patience, start weights, and the plug-ins of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segweave.data.batches import Batches
from segweave.data.store import Store
from segweave.errors import InputError, UsageError
from segweave.recipes.build import build_network
from segweave.registry import plugin_hashes, register_plugin
from segweave.runs.checkpoints import read_checkpoint
from segweave.training import Run, train
from tests.training import toy
from tests.training.toy import run_of

PLAIN = {
    "network": {"name": "toy-feedback"},  # no batch norm, which sees each batch apart
    "training__augmentation": {},
    "training__loss": [{"name": "cross-entropy"}],
    "training__optimiser": {"name": "sgd", "rate": 0.5, "momentum": 0.0, "weight_decay": 0.0},
    "training__schedule": {"name": "constant"},
}
MANY = [
    {"name": "geometry", "options": {"rotation": 30, "mirror": "both"}},
    {"name": "elastic", "probability": 0.5},
    {"name": "brightness"},
    {"name": "contrast"},
    {"name": "gamma"},
    {"name": "noise", "probability": 0.5},
    {"name": "blur"},
]


def test_accumulated_gradients_are_those_of_one_large_batch(
    binary_store: Store, tmp_path: Path
) -> None:
    register_plugin(toy.FEEDBACK_NETWORK)
    runs = [
        run_of(
            binary_store,
            tmp_path / f"{size}",
            **PLAIN,
            training__epochs=1,
            training__batch_size=size,
            training__accumulate=count,
        )
        for size, count in ((10, 1), (5, 2), (2, 5))
    ]
    assert [len(run.metrics) for run in runs] == [2, 2, 2]
    start = build_network(runs[0].recipe, 1, binary_store.target).state_dict()
    weights = runs[0].weights()
    for other in runs[1:]:
        for name, value in other.weights().items():
            moved = (weights[name] - start[name]).abs().max()
            assert (value - weights[name]).abs().max() <= 1e-3 * moved
    losses = [run.metrics[0]["loss"] for run in runs]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_every_scale_is_a_batch_of_its_epoch(store: Store, out: Path) -> None:
    run = run_of(store, out, training__scales=[0.5, 1, 1.5], training__epochs=1)
    assert len(run.metrics) == 15
    with pytest.raises(UsageError, match=r"16, 16"):
        run_of(store, out.parent / "wrong", input__size=[18, 16], training__scales=[1, 2])


def test_the_average_is_validated_and_becomes_the_model(store: Store, out: Path) -> None:
    seen: list[torch.Tensor] = []

    def score(network, *_):  # type: ignore[no-untyped-def]
        seen.append(network.state_dict()["network.classifier.weight"].clone())
        return {"dice": float(len(seen))}

    recipe = toy.recipe(training__epochs=3, training__average={"decay": 0.7})
    run = train(recipe, store, out, score=score)
    last = read_checkpoint(run.checkpoints["last"])
    assert last.average is not None
    name = "network.classifier.weight"
    assert not torch.equal(last.average[name], last.network[name])
    assert torch.equal(seen[-1], last.average[name])
    assert torch.equal(run.weights()[name], last.average[name])
    assert torch.equal(run.weights("last")[name], last.average[name])
    # What is trained does not see the average.
    plain = train(toy.recipe(training__epochs=3), store, out.parent / "plain", score=toy.score)
    other = read_checkpoint(plain.checkpoints["last"])
    assert all(torch.equal(last.network[key], other.network[key]) for key in other.network)


def test_a_training_ends_where_validation_no_longer_improves(store: Store, out: Path) -> None:
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])
    recipe = toy.recipe(training__epochs=50, training__patience=3, training__checkpoint="best")
    run = train(recipe, store, out, score=lambda *_: {"dice": next(scores)})
    assert len(run.metrics) == 25
    assert run.model_card["scores"]["step"] == 10
    assert run.model_card["ended"] == (
        "no higher validation Dice in 3 validations (0.5000 at step 10)"
    )
    assert next(scores) == 0.9
    whole = run_of(store, out.parent / "whole", training__patience=5)
    assert whole.model_card["ended"] == "all steps were done"


def test_the_rate_falls_where_validation_stands_still_and_a_resumed_one_too(
    store: Store, out: Path
) -> None:
    schedule = {"name": "plateau", "factor": 0.5, "patience": 1}
    recipe = toy.recipe(training__epochs=5, training__schedule=schedule)
    dice = [0.2, 0.1, 0.1, 0.1, 0.1]

    def run(folder: Path, scores: list[float]) -> Run:
        given = iter([*scores, None])  # None: the training breaks off
        return train(recipe, store, folder, score=lambda *_: {"dice": float(next(given))})  # type: ignore[arg-type]

    whole = run(out, dice)
    rates = [row["rate"] for row in whole.metrics][::5]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005])
    with pytest.raises(TypeError):
        run(out.parent / "resumed", dice[:3])
    again = run(out.parent / "resumed", dice[3:])
    assert [row["rate"] for row in again.metrics] == [row["rate"] for row in whole.metrics]
    with pytest.raises(InputError, match="'plateau' needs validation cases"):
        run_of(store, out.parent / "x", training__schedule=schedule, data__validation=None)


def test_one_scale_per_batch_makes_an_epoch_no_longer(store: Store, out: Path) -> None:
    several = {"training__scales": [1, 1.5], "training__scales_per_batch": "one"}
    assert len(run_of(store, out, **several, training__epochs=1).metrics) == 5


def test_an_ended_training_stays_ended(
    store: Store, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    recipe = toy.recipe(training__epochs=50, training__patience=1)
    scores = iter([0.2, 0.1])
    monkeypatch.setattr("segweave.training.run_training.write_model", failing)
    with pytest.raises(ZeroDivisionError):
        train(recipe, store, out, score=lambda *_: {"dice": next(scores)})
    monkeypatch.undo()
    run = train(recipe, store, out, score=failing)  # type: ignore[arg-type]
    assert len(run.metrics) == 10
    assert "no higher" in run.model_card["ended"]


def test_patience_needs_validation_cases(store: Store, out: Path) -> None:
    with pytest.raises(InputError, match="patience needs validation cases"):
        run_of(store, out, training__patience=2, data__validation=None)


def test_a_group_s_rate_follows_the_schedule(store: Store, out: Path) -> None:
    optimiser = {
        "name": "sgd",
        "rate": 0.1,
        "groups": [{"match": "network.classifier.*", "rate": 0}],
    }
    run = run_of(store, out, training__optimiser=optimiser)
    start = build_network(run.recipe, 1, store.target).state_dict()
    for name, value in run.weights().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, start[name]) == ("classifier" in name), name
    optimiser["groups"] = [{"match": "network.clasifier.*"}]
    with pytest.raises(UsageError, match=r"did you mean network\.classifier"):
        run_of(store, out.parent / "other", training__optimiser=optimiser)
    assert not (out.parent / "other").exists()


def test_a_training_begins_with_given_weights(store: Store, out: Path) -> None:
    first = run_of(store, out)
    frozen = {"name": "sgd", "rate": 1e-30, "weight_decay": 0.0}
    recipe = toy.recipe(training__epochs=1, training__optimiser=frozen)
    again = train(recipe, store, out.parent / "again", score=toy.score, start_from=first.weights())
    for name, value in again.weights().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, first.weights()[name])
    with pytest.raises(InputError, match="starting from given weights"):
        train(recipe, store, out.parent / "x", score=toy.score, start_from={"a": torch.ones(1)})


def test_a_checkpoint_without_the_newer_fields_is_read(store: Store, out: Path) -> None:
    run = run_of(store, out)
    path = run.checkpoints["last"]
    content = torch.load(path, weights_only=True)
    for name in ("average", "masks", "stale", "falls", "ended"):
        del content[name]
    torch.save(content, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.average is None
    assert checkpoint.weights is checkpoint.network
    assert (checkpoint.stale, checkpoint.ended) == (0, "")


def test_arms_stay_paired_under_all_augmentations(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[object, torch.Tensor, torch.Tensor]]] = {}
    original = Batches.batch

    def watched(self: Batches, keys, epoch, masks=None):  # type: ignore[no-untyped-def]
        batch = original(self, keys, epoch, masks)
        middle = batch.image[:, batch.image.shape[1] // 2].clone()
        seen.setdefault(current, []).append((tuple(batch.keys), batch.label, middle))
        return batch

    monkeypatch.setattr(Batches, "batch", watched)
    for current, changes in (
        ("plain", {}),
        ("conv", {"context": {"name": "conv"}, "input__slices": 3}),
    ):
        run_of(store, tmp_path / current, training__augmentation=MANY, **changes)
    assert len(seen["plain"]) == len(seen["conv"]) == 10
    for one, other in zip(seen["plain"], seen["conv"], strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
        torch.testing.assert_close(one[2], other[2], rtol=0, atol=1e-5)


def test_progress_is_reported(store: Store, out: Path) -> None:
    calls: list[tuple[float, float, str]] = []
    train(
        toy.recipe(training__epochs=2),
        store,
        out,
        score=toy.score,
        progress=lambda done, total, name: calls.append((done, total, name)),
    )
    names = [name for _, _, name in calls]
    assert names[:5] == ["checking the store"] * 5
    assert names[5:9] == ["reading images"] * 4
    assert [call[:2] for call in calls[9:]] == [(step, 10) for step in range(1, 11)]
    assert names[9].startswith("loss 0.")
    assert "validation Dice" not in names[9]
    assert "validation Dice 0." in names[-1]


LOSS = '''
"""A plug-in loss."""

from segweave.registry import LossCard

CARD = LossCard(name="brier", title="Mean squared error of probabilities", entry="Brier")


class Brier:
    def __init__(self, target, *, power=2):
        self.target, self.power = target, power

    def __call__(self, logits, label):
        from torch.nn.functional import one_hot

        truth = one_hot(label, self.target.classes).movedim(-1, 1)
        return ((logits.softmax(1) - truth).abs() ** self.power).mean()
'''

AUGMENTATION = '''
"""A plug-in augmentation."""

import numpy as np

from segweave.data.augmentations.base import ValueAugmentation, per_sample
from segweave.registry import AugmentationCard

CARD = AugmentationCard(name="fade", title="Draws values towards the mean", entry="Fade")


class Fade(ValueAugmentation):
    def __init__(self, *, most=0.5):
        self.most = most

    def draw(self, stream, window):
        return np.asarray(self.most * stream.random())

    def change(self, samples, numbers):
        return samples.image + per_sample(numbers) * (samples.mean() - samples.image)
'''


def test_a_plug_in_loss_and_augmentation_are_used_by_a_recipe(tmp_path: Path, store: Store) -> None:
    from segweave.cli import main

    (tmp_path / "brier.py").write_text(LOSS)
    (tmp_path / "fade.py").write_text(AUGMENTATION)
    (tmp_path / "mine.yaml").write_text(
        "network: {name: unet, options: {width: 2, levels: 3}}\n"
        "input: {size: [16, 16]}\n"
        "training:\n"
        "  epochs: 1\n"
        "  loss: [{name: brier, options: {power: 2}}]\n"
        "  augmentation: [{name: geometry, options: {mirror: both}},\n"
        "    {name: fade, probability: 0.8, options: {most: 0.9}}]\n"
    )
    loaded = set(plugin_hashes())  # tests before this one, in the same process, may have left some
    plugins = ["--plugin", str(tmp_path / "brier.py"), "--plugin", str(tmp_path / "fade.py")]
    arguments = ["train", str(tmp_path / "mine.yaml"), "--store", str(store.path), "--quiet"]
    with pytest.raises(SystemExit) as end:
        main([*plugins, *arguments, "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert end.value.code in (0, None)
    run = Run(tmp_path / "run")
    new = set(run.environment["plugins"]) - loaded
    assert {Path(name).name for name in new} == {"brier.py", "fade.py"}
    rows = run.metrics
    assert all(0 < row["loss"] < 1 for row in rows)
    # Its strength shows in the first loss, before any weight has changed.
    strength = ["--set", "training.augmentation=[{name: fade, options: {most: 0.0}}]"]
    with pytest.raises(SystemExit) as end:
        main([*plugins, *arguments, "--out", str(tmp_path / "weak"), "--device", "cpu", *strength])
    assert end.value.code in (0, None)
    assert not np.isclose(rows[0]["loss"], Run(tmp_path / "weak").metrics[0]["loss"], rtol=1e-6)
