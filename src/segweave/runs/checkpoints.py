"""Checkpoints: everything that a training needs to go on bit for bit, written so that a kill leaves
the old one or the new one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segweave.errors import InputError, SegweaveError
from segweave.storage import atomic_write

FORMAT = 1


@dataclass
class Checkpoint:
    """The state of a training after `step` optimiser steps.

    Rates (but for `falls`), the order of samples, augmentation and dropout are functions of seed
    and step and need no state. Fields with a default may be missing in a file.

    Attributes:
        step: optimiser steps that are done.
        epoch: epochs that are done.
        seconds: how long they took.
        network: the weights that are trained.
        optimiser: its state.
        random: the state of torch's global generator.
        scores: the validation scores at the last validation.
        best: the highest validation Dice so far and the step that reached it.
        best_on_test: the same for the test cases, under the protocol `published`.
        average: the moving average of the weights, where the recipe asks for one.
        masks: the masks of a network with feedback.
        stale: validations since the highest Dice.
        falls: how often the rate has fallen, under the schedule `plateau`.
        ended: why the training ended before its last step, else "".
    """

    step: int
    epoch: int
    seconds: float
    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    random: Tensor
    scores: dict[str, float] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    best_on_test: tuple[float, int] | None = None
    average: dict[str, Tensor] | None = None
    masks: dict[str, Tensor] | None = None
    stale: int = 0
    falls: int = 0
    ended: str = ""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to predict with: the average where there is one."""
        return self.network if self.average is None else self.average


def write_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write to a temporary name beside `path`, flush, rename. Raises SegweaveError where the disk
    is full.
    """
    content = {"format": FORMAT, **_shallow(checkpoint)}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch wraps the error of the file system; without this a full disk reads like a bug.
            raise _failed(path, error) from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in `path`, on the CPU; only tensors and plain values are read. Raises
    InputError where it is missing, damaged or of another format.
    """
    doing = "reading a checkpoint"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(doing, file=path, expected="a checkpoint", found="no such file") from None
    except Exception as error:
        raise InputError(
            doing,
            file=path,
            expected="a checkpoint of a segweave training",
            found=f"{type(error).__name__} while reading it safely",
            remedy="remove it; the training then starts from the last one that is left",
        ) from error
    names = {f.name for f in fields(Checkpoint)}
    needed = {"step", "epoch", "seconds", "network", "optimiser", "random"}
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InputError(doing, file=path, expected=f"format {FORMAT}", found="something else")
    if not needed <= set(content) <= names:
        raise InputError(
            doing, file=path, expected=", ".join(sorted(names)), found=", ".join(sorted(content))
        )
    return Checkpoint(**content)


def _shallow(checkpoint: Checkpoint) -> dict[str, Any]:
    return {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}


def _failed(path: str | Path, error: Exception) -> SegweaveError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    free = shutil.disk_usage(Path(path).parent).free / 1e6
    return SegweaveError(
        f"writing a checkpoint: {cause.strerror if cause else error}",
        file=path,
        expected="room for the whole file",
        found=f"{free:.1f} MB left on that disk",
        remedy="free some space; the checkpoint that was there before is untouched",
    )
