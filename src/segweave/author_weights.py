"""Loads the authors' checkpoints into our modules: their names are mapped to ours, tables that they
store are checked or skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from segweave.errors import InputError, UsageError
from segweave.weights import compare_weights


@dataclass(frozen=True)
class ReleasedNames:
    """How a module's tensors are called in the released code.

    `tensors` maps each of our state-dict names to the released one. `fixed` holds released names of
    tables that we recompute (position and index tables): they are accepted and left alone. `dead`
    holds released names of parameters that no output depends on: they are accepted and dropped.
    """

    tensors: Mapping[str, str]
    fixed: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()


@runtime_checkable
class HasReleasedNames(Protocol):
    """A module that knows the released names of its tensors."""

    def released_names(self) -> ReleasedNames:
        """The map from our state dict to the released one."""
        ...


@dataclass(frozen=True)
class LoadReport:
    """What `load_released` did, in released names: `missing` are tensors of ours that the file
    lacks.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    dead: tuple[str, ...]


def load_released(
    module: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True
) -> LoadReport:
    """Copy a released state dict into `module` and report what matched.

    Raises UsageError where `module` has no released names, InputError where a shape differs or, if
    `strict`, where tensors are missing or unexpected. `module` is changed only if everything fits.
    """
    if not isinstance(module, HasReleasedNames):
        raise UsageError(
            "loading a released checkpoint",
            expected="a module with released names",
            found=type(module).__name__,
        )
    names = module.released_names()
    state = module.state_dict(keep_vars=True)
    given = {
        key.removeprefix("module."): value for key, value in state_dict.items()
    }  # DataParallel's prefix
    recomputed = names.fixed | names.dead
    misfit = compare_weights(
        {theirs: state[ours] for ours, theirs in names.tensors.items()},
        {theirs: tensor for theirs, tensor in given.items() if theirs not in recomputed},
    )
    if misfit.shapes or (strict and misfit):
        raise InputError(
            f"loading a released checkpoint into {type(module).__name__}",
            expected="the tensors of the released model",
            found=str(misfit),
            remedy="check that the checkpoint belongs to this network, made with the options that "
            "it was trained with",
        )
    matched = [(ours, theirs) for ours, theirs in names.tensors.items() if theirs in given]
    with torch.no_grad():
        for ours, theirs in matched:
            state[ours].copy_(given[theirs])
    return LoadReport(
        matched=tuple(theirs for _, theirs in matched),
        missing=misfit.missing,
        unexpected=tuple(sorted(misfit.unexpected)),
        dead=tuple(sorted(set(given) & names.dead)),
    )
