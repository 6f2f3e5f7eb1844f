"""Runs a training session in Lightning: device, precision, gradient clipping and the loop.

Lightning is imported inside the functions that train, because that takes seconds.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from segweave.errors import MissingExtraError
from segweave.training.session import TrainingSession, stopped


def check_lightning() -> None:
    """Raise MissingExtraError where the libraries of the extra `train` are not installed."""
    from importlib.util import find_spec

    for library in ("lightning", "tensorboard"):
        if find_spec(library) is None:
            raise MissingExtraError("training", library=library, extra="train")


def run_session(session: TrainingSession, device: torch.device) -> None:
    """Train until the session is finished. Raises what the session raises, TrainingStoppedError on
    Ctrl-C.
    """
    if session.finished:
        return
    import lightning
    from lightning.pytorch.plugins.environments import LightningEnvironment

    class Module(lightning.LightningModule):
        """Passes Lightning's hooks on to the session. Its "batch" is the number of a step."""

        def __init__(self) -> None:
            super().__init__()
            self.network = session.network
            self.automatic_optimization = False  # a step may take several batches

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return session.make_optimiser()

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            session.before_step(self.optimizers(use_pl_optimizer=False))

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimiser = self.optimizers()
            optimiser.zero_grad()
            for one in session.passes():
                self.manual_backward(session.compute(one, session.read(one)))
            if training.gradient_clip is not None:
                self.clip_gradients(optimiser, training.gradient_clip, "norm")
            optimiser.step()

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            session.after_step()
            if session.finished:
                self.trainer.should_stop = True

    class Steps:
        """The steps that are left, as one long pass: Lightning's epochs are not used, so that a
        training goes on in the middle of an epoch without its counters.
        """

        def __iter__(self) -> Iterator[int]:
            return iter(range(session.step, session.steps))

        def __len__(self) -> int:
            return session.steps - session.step

    training = session.recipe.training
    with _quiet(), _interrupts(session):
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index] if device.type == "cuda" else 1,
            precision="32-true",  # the session applies mixed precision, to the forward pass
            max_epochs=1,
            deterministic="warn" if training.deterministic else False,
            benchmark=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=str(session.folder),
            plugins=[LightningEnvironment()],
        )
        session.open()
        try:
            trainer.fit(Module(), train_dataloaders=Steps())
        finally:
            session.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's messages about the machine; the run folder has them."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def _interrupts(session: TrainingSession) -> Iterator[None]:
    """The first Ctrl-C ends the step, saves and stops; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if session.stop_asked:
            raise stopped(session.folder, session.saved_step)
        session.stop_asked = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
