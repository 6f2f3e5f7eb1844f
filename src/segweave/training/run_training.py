"""`train`: trains a recipe on a store and writes a run folder; continues a stopped training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from segweave.data.batches import Batches
from segweave.data.cache import Resized
from segweave.data.case import Case
from segweave.data.store import CaseStore, Store
from segweave.errors import InputError, UsageError
from segweave.recipes import Recipe
from segweave.recipes.build import build_network
from segweave.recipes.first_checks import SIZE_RULES, check_input_size
from segweave.runs.checkpoints import read_checkpoint
from segweave.runs.environment import describe_environment, describe_session
from segweave.runs.model_card import write_model
from segweave.runs.run_folder import CARD, CHECKPOINTS, ENVIRONMENT, MODEL, RECIPE, RESIZED, Run
from segweave.runs.starting import check_folder
from segweave.runtime.devices import choose_device, flushed_denormals
from segweave.runtime.progress import Progress
from segweave.storage import locked, write_json, write_text
from segweave.training.boxes import ReferenceBoxes
from segweave.training.feedback import MaskMemory
from segweave.training.loop import check_lightning, run_session
from segweave.training.optimisers import make_optimiser
from segweave.training.passes import Passes
from segweave.training.session import Score, TrainingSession, Validation, stopped
from segweave.training.time_limit import TimeLimit
from segweave.training.try_out import try_out
from segweave.weaving import WovenNetwork
from segweave.weights import load_weights

_LOCK = ".lock"


class LazyCases(Sequence[Case]):
    """Cases of a store by id, each opened when it is asked for."""

    def __init__(self, store: CaseStore, ids: Sequence[str]) -> None:
        self.store = store
        self.ids = list(ids)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Case: ...

    @overload
    def __getitem__(self, index: slice) -> LazyCases: ...

    def __getitem__(self, index: int | slice) -> Case | LazyCases:
        """The case at `index`, or a slice of the cases."""
        if isinstance(index, slice):
            return LazyCases(self.store, self.ids[index])
        return self.store.case(self.ids[index])


def train(
    recipe: Recipe,
    store: CaseStore | str | Path,
    out: str | Path,
    *,
    score: Score | None,
    score_on_test: Score | None = None,
    device: str = "auto",
    resume: bool = True,
    start_from: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
    limit: TimeLimit | None = None,
) -> Run:
    """Train as `recipe` says on the cases of `store`, and write a run folder.

    Where `out` holds an unfinished run of the same recipe and data, the training goes on bit for
    bit; a finished one is returned as it is.

    Args:
        recipe: the resolved recipe.
        store: what `prepare` wrote.
        out: the run folder.
        score: (network, input, target, cases) → {"dice": ..., ...}, called with the validation
            cases; None only where the recipe names none.
        score_on_test: used under `protocol: published` only, for the checkpoint that the published
            code chooses on the test set.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        resume: False refuses a folder that holds a run.
        start_from: the woven network's weights at the start, by name; None for those that the seed
            gives.
        progress: called with (done, total, what is being done): cases while the store is checked
            and images are read, then optimiser steps with loss and validation Dice.
        limit: ends the training in time, behind an epoch; None for no limit.

    Raises UsageError for a folder with another run in it, InputError for data that does not fit,
    SegweaveError for a full disk or a loss that is not finite, TrainingStoppedError on Ctrl-C.
    """
    check_lightning()
    folder = Path(out)
    chosen_device = choose_device(device)
    source = Store(store) if isinstance(store, str | Path) else store
    parts = recipe.choose_parts(source)
    check_folder(folder, recipe, source, resume=resume)
    _check_cases(recipe, source, parts, score, progress)
    on_test = score_on_test if recipe.protocol == "published" and parts.get("test") else None
    with _locked(folder), flushed_denormals(), _separate_randomness(chosen_device):
        check_folder(folder, recipe, source, resume=resume)
        last = folder / CHECKPOINTS / "last.ckpt"
        begun = (folder / RECIPE).is_file() and last.is_file()
        checkpoint = read_checkpoint(last) if begun else None
        if (folder / MODEL / CARD).is_file():
            _remove_leftovers(folder)
            return Run(folder)
        target = source.target
        network = build_network(recipe, len(recipe.input.channels), target)
        if start_from is not None:
            load_weights(network, start_from, "starting from given weights")
        feedback, prompt = network.feedback, network.prompt
        if feedback is not None and prompt is not None:
            raise UsageError(
                "training",
                expected="a network with feedback or with a prompt",
                found=f"{recipe.network.name}, which has both",
                remedy="train it in your own loop, and save it with segweave.save_model",
            )
        try:
            batches = Batches(
                _read_images(source, recipe, parts["training"], folder, progress),
                batch_size=recipe.training.batch_size,
                seed=recipe.seed,
                augmentation=recipe.training.augmentation,
                labelled_only=prompt is not None,
                device=chosen_device,
            )
            passes = Passes(
                batches,
                accumulate=recipe.training.accumulate,
                scales=recipe.training.scales,
                one_scale_seed=(recipe.seed if recipe.training.scales_per_batch == "one" else None),
                divisor=getattr(network.network, "divisor", 1),
                smallest=getattr(network.network, "smallest", 1),
            )
            memory = shown = None
            if feedback is not None:
                memory = MaskMemory(feedback, batches, exclusive=target.kind == "exclusive")
            if prompt is not None:
                shown = ReferenceBoxes(prompt, batches, seed=recipe.seed)
            _check_size(recipe, network)
            try_out(network, passes)
            session = TrainingSession(
                recipe,
                network,
                target,
                passes,
                folder,
                checkpoint=checkpoint,
                memory=memory,
                shown=shown,
                validate=_bound(score, recipe, source, parts.get("validation", [])),
                validate_on_test=_bound(on_test, recipe, source, parts.get("test", [])),
                progress=progress,
                limit=limit,
            )
            # A wrong pattern of parameter names is reported before the folder is made.
            make_optimiser(recipe.training.optimiser, network)
            _start_folder(folder, recipe, source, chosen_device, parts, session.step)
            run_session(session, chosen_device)
            chosen_file = folder / CHECKPOINTS / f"{recipe.training.checkpoint}.ckpt"
            chosen = read_checkpoint(chosen_file)
            network.to("cpu")
            load_weights(network, chosen.weights, "reading a checkpoint", file=chosen_file)
            write_model(
                folder / MODEL,
                recipe,
                target,
                network,
                chosen,
                source,
                parts,
                ended=session.ended,
                recipe_digest=Run(folder).identity.digest,
            )
        except KeyboardInterrupt:
            raise stopped(folder, checkpoint.step if checkpoint else 0) from None
    return Run(folder)


def _check_cases(
    recipe: Recipe,
    store: CaseStore,
    parts: Mapping[str, Sequence[str]],
    score: Score | None,
    progress: Progress | None,
) -> None:
    """Raise where the cases are damaged, hold no class, or cannot be scored as the recipe asks."""
    ids = [*parts["training"], *parts.get("validation", [])]
    for done, _ in enumerate(store.verify(ids), start=1):
        if progress is not None:
            progress(done, len(ids), "checking the store")
    _check_labels(store, parts)
    if parts.get("validation") and score is None:
        raise UsageError(
            "training",
            expected="a function that scores the validation cases",
            found="none",
            remedy="use segweave.train, which has one, or set data.validation to null",
        )
    needed = {
        "training.checkpoint is best": recipe.training.checkpoint == "best",
        "training.patience is set": recipe.training.patience is not None,
        "training.schedule is plateau": recipe.training.schedule.name == "plateau",
    }
    for reason, needs in needed.items():
        if needs and not parts.get("validation"):
            raise UsageError(
                "training",
                expected=f"validation cases, as {reason}",
                found="none in this split",
                remedy="set training.checkpoint to last, training.patience to null and "
                "training.schedule.name to constant",
            )


def _read_images(
    store: CaseStore,
    recipe: Recipe,
    ids: Sequence[str],
    run: Path,
    progress: Progress | None,
) -> Resized:
    def report(done: float, total: float, name: str) -> None:
        if progress is not None:
            progress(done, total, "reading images")

    return Resized(store, recipe.input, ids, instead=run / RESIZED, progress=report)


def _check_labels(store: CaseStore, parts: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError where no case that is trained on, or validated on, holds any class."""
    for part in ("training", "validation"):
        ids = parts.get(part, [])
        if ids and not any(_holds_a_class(store, id) for id in ids):
            raise InputError(
                "training",
                expected=f"at least one {part} case whose label holds a class",
                found=f"{len(ids)} cases of background only"
                if len(ids) > 1
                else f"{ids[0]}, which is background only",
                remedy="look at the masks, and at how their values become classes",
            )


def _holds_a_class(store: CaseStore, id: str) -> bool:
    label = store.case(id).label
    ignored = store.target.ignored
    return label is not None and any(bool(((s != 0) & (s != ignored)).any()) for s in label)


def _check_size(recipe: Recipe, network: WovenNetwork) -> None:
    """Raise UsageError where `input.size` breaks the size rule of the network as it was made."""
    rules = {k: getattr(network.network, k) for k in SIZE_RULES if hasattr(network.network, k)}
    check_input_size(recipe, **rules)


def _bound(
    score: Score | None, recipe: Recipe, store: CaseStore, ids: Sequence[str]
) -> Validation | None:
    """`score` as a function of the network, None where there is nothing to score."""
    if score is None or not ids:
        return None
    cases = LazyCases(store, ids)
    return lambda network: score(network, recipe.input, store.target, cases)


def _start_folder(
    folder: Path,
    recipe: Recipe,
    store: CaseStore,
    device: torch.device,
    parts: dict[str, list[str]],
    step: int,
) -> None:
    _remove_leftovers(folder)
    if (folder / RECIPE).is_file():
        environment = Run(folder).environment
        environment["sessions"].append(describe_session(device, step))
        write_json(folder / ENVIRONMENT, environment)
        return
    write_json(folder / ENVIRONMENT, describe_environment(recipe, store, device, parts))
    write_text(folder / RECIPE, recipe.to_yaml())


def _remove_leftovers(folder: Path) -> None:
    """Remove files that a killed process left half written."""
    for leftover in [*folder.glob(".writing-*"), *folder.glob("*/.writing-*")]:
        if leftover.is_file():
            leftover.unlink(missing_ok=True)


@contextmanager
def _separate_randomness(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were."""
    devices = [device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second training out of the folder; a new folder that stays empty is removed."""
    created = not folder.exists()
    try:
        with locked(folder / _LOCK, "starting a training"):
            yield
    finally:
        if created and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
