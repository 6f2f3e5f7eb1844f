"""Loads the authors' checkpoints into our modules: their names are mapped to ours, tables that they
store are checked or skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from segweave.errors import InputError, UsageError
from segweave.weights import Misfit, compare_weights


@dataclass(frozen=True)
class ReleasedNames:
    """How a module's tensors are called in the released code.

    Attributes:
        tensors: our name in the state dict → the released name.
        fixed: released names of tables that we recompute (positions, indices), and second names of
            tensors that the released state dict holds twice: accepted and left alone.
        dead: released names of parameters that no output depends on: accepted and dropped.
        stacked: our name → the released names of the tensors that it holds one after the other
            along its first axis.
    """

    tensors: Mapping[str, str]
    fixed: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def all(self) -> set[str]:
        """Every released name."""
        several = {theirs for names in self.stacked.values() for theirs in names}
        return {*self.tensors.values(), *several, *self.fixed, *self.dead}

    def parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under our names → under the released ones; those of `stacked` are views."""
        named = {theirs: tensors[ours] for ours, theirs in self.tensors.items()}
        for ours, several in self.stacked.items():
            named |= dict(zip(several, tensors[ours].unbind(), strict=True))
        return named


def names_by_prefix(
    module: nn.Module,
    prefixes: Mapping[str, str],
    *,
    dead: Collection[str] = (),
    stacked: Mapping[str, tuple[str, ...]] | None = None,
) -> ReleasedNames:
    """Released names that differ from ours in their first parts alone.

    Args:
        module: the module; each tensor of its state dict begins with one of the prefixes, or is
            one of `stacked`.
        prefixes: our prefix → the released one. The longest that fits is replaced.
        dead: released names of parameters that no output depends on.
        stacked: see `ReleasedNames`.
    """
    stacked = stacked or {}
    tensors = {}
    for name in module.state_dict():
        if name in stacked:
            continue
        ours = max((p for p in prefixes if name.startswith(p)), key=len)
        tensors[name] = prefixes[ours] + name.removeprefix(ours)
    return ReleasedNames(tensors, dead=frozenset(dead), stacked=stacked)


@runtime_checkable
class HasReleasedNames(Protocol):
    """A module that knows the released names of its tensors."""

    def released_names(self) -> ReleasedNames:
        """The map from our state dict to the released one."""
        ...


@dataclass(frozen=True)
class LoadReport:
    """What `load_released` did, in released names.

    Attributes:
        matched: tensors that were copied.
        missing: tensors of the module that the file lacks.
        unexpected: tensors of the file that the module does not have.
        dead: tensors of the file that no output depends on.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    dead: tuple[str, ...]


def without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix `module.`, which torch's DataParallel gives them."""
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def released_misfit(module: nn.Module, state_dict: Mapping[str, Tensor]) -> Misfit:
    """How a released state dict differs from what `module` expects, in released names. Raises
    UsageError where `module` has no released names.
    """
    if not isinstance(module, HasReleasedNames):
        raise UsageError(
            "loading a released checkpoint",
            expected="a module with released names",
            found=type(module).__name__,
        )
    names = module.released_names()
    recomputed = names.fixed | names.dead
    return compare_weights(
        names.parts(module.state_dict()),
        {k: tensor for k, tensor in without_prefix(state_dict).items() if k not in recomputed},
    )


def load_released(
    module: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True
) -> LoadReport:
    """Copy a released state dict into `module` and report what matched.

    Args:
        module: a module that knows the released names of its tensors.
        state_dict: the tensors under their released names; a prefix `module.` is taken off.
        strict: whether missing and unexpected tensors are an error.

    Raises UsageError where `module` has no released names, InputError where a shape differs or, if
    `strict`, where tensors are missing or unexpected. `module` is changed only if everything fits.

    Example:
        >>> from segweave import create_network, load_released
        >>> network = create_network("unet", in_channels=1, classes=2, width=4)
        >>> names = network.released_names().tensors
        >>> file = {names[name]: tensor for name, tensor in network.state_dict().items()}
        >>> load_released(network, file).missing
        ()
    """
    misfit = released_misfit(module, state_dict)
    assert isinstance(module, HasReleasedNames)
    names = module.released_names()
    given = without_prefix(state_dict)
    if misfit.shapes or (strict and misfit):
        raise InputError(
            f"loading a released checkpoint into {type(module).__name__}",
            expected="the tensors of the released model",
            found=str(misfit),
            remedy="check that the checkpoint belongs to this network, made with the options that "
            "it was trained with",
        )
    with torch.no_grad():
        tensors = names.parts(module.state_dict())
        matched = [theirs for theirs in tensors if theirs in given]
        for theirs in matched:
            tensors[theirs].copy_(given[theirs])
    return LoadReport(
        matched=tuple(matched),
        missing=misfit.missing,
        unexpected=tuple(sorted(misfit.unexpected)),
        dead=tuple(sorted(set(given) & names.dead)),
    )
