"""The contract of a context module: a sequence of feature maps in, one feature map out, split into
per-slice and per-window work. What a user's file breaks is reported with the name of that file.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from torch import Tensor, nn

from segweave.errors import InputError, SegweaveError, UsageError, nearest

Prepared = dict[str, Tensor]
"""What depends on one slice alone, as named tensors (nested names joined with a dot)."""

CONTRACT = (
    "a context module: torch.nn.Module with the attributes channels and out_channels, "
    "prepare(step (B, C, H, W)) → named tensors, fuse(prepared steps) → (B, out_channels, H, W), "
    "forward(sequence (B, T, C, H, W)) → the same"
)
REMEDY = "derive the class from segweave.context.ContextModule and correct the file"
NEEDED = ("channels", "out_channels", "both_sides", "current", "prepare", "fuse", "states")

T = TypeVar("T")


class ContextModule(nn.Module, ABC):
    """Sequence (B, T, C, H, W) → (B, C_out, H, W), any B, T ≥ 1, H, W.

    `prepare` does what depends on one step alone; `fuse` does what depends on the window, so that
    over a volume the former runs once per slice. `fuse([prepare(step) for each step])` equals
    `forward(sequence)`; `forward` may skip what its window does not use. `current` is the index of
    the step to segment: the last one for one-sided modules, the middle one for modules that read a
    window from both sides.

    Attributes:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns.
        both_sides: whether it reads a window from both sides.
    """

    channels: int
    out_channels: int
    both_sides: bool = False

    def current(self, steps: int) -> int:
        """Index of the step to segment among `steps`."""
        return steps // 2 if self.both_sides else steps - 1

    @abstractmethod
    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → everything about this step that does not depend on its neighbours."""

    @abstractmethod
    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps in reading order → (B, C_out, H, W)."""

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        return self.fuse([check_prepared(self, self.prepare(x)) for x in sequence.unbind(1)])

    def states(self, sequence: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Inner states by name, of i, f, g, o, c, h, query, key, value, attention, output, with
        leading axes (layers, batch, time) where they have them. Raises UsageError for a name that
        this module does not have.
        """
        unknown = sorted(set(names) - {"output"})
        if unknown:
            raise UsageError(
                f"reading states of {type(self).__name__}",
                expected="output",
                found=unknown[0],
                remedy=nearest(unknown[0], ["output"]),
            )
        return {"output": self(sequence)}


class Control(ContextModule):
    """What the controls without memory share: they have no parameters, except where `out_channels`
    differs from `channels`; then a 1×1 convolution follows.

    Args:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns; default: `channels`.
        form: changes nothing.
        both_sides: whether the current step is the middle one, else the last one.

    Raises:
        UsageError: other `out_channels`, where the control cannot change them.
    """

    changes_width: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: str = "paper",
        both_sides: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.out_channels = channels if out_channels is None else out_channels
        self.form = form
        self.both_sides = both_sides
        if self.out_channels != channels and not self.changes_width:
            raise UsageError(
                f"creating the control {type(self).__name__.lower()!r}",
                expected=f"as many output channels as input channels, {channels}",
                found=str(out_channels),
                remedy="'mean' and 'conv' can change the number of channels",
            )
        self.conv: nn.Module = (
            nn.Identity()
            if self.out_channels == channels
            else nn.Conv2d(channels, self.out_channels, kernel_size=1)
        )

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → the map as it leaves the 1×1 convolution, where there is one."""
        return {"map": self.conv(step)}


def built(doing: str, entry: Any, build: Callable[[], T]) -> T:
    """What `build` returns; an error of a user's class or function `entry` becomes an InputError
    that names its file.
    """
    try:
        return build()
    except SegweaveError:
        raise
    except Exception as error:
        if _is_ours(entry):
            raise
        _broken(doing, entry, CONTRACT, f"{type(error).__name__}: {error}", error)


def check_module(
    doing: str, module: Any, channels: int, out_channels: int | None, entry: Any = None
) -> None:
    """Raise InputError unless `module` has what the contract names.

    Args:
        doing: what was being done, as a phrase.
        module: what is to be a context module.
        channels: channels of the maps that it has to read.
        out_channels: channels of the map that it has to return; None: any number.
        entry: the class or function that returned it, where it is known.
    """
    if not isinstance(module, nn.Module):
        thing = module if entry is None else entry
        _broken(doing, thing, CONTRACT, f"an object of the type {type(module).__name__}")
    missing = [name for name in NEEDED if not hasattr(module, name)]
    if missing:
        name = type(module).__name__
        _broken(doing, module, CONTRACT, f"{name} without " + ", ".join(missing))
    wanted = {"channels": channels, "out_channels": out_channels}
    for name, number in wanted.items():
        value = getattr(module, name)
        wrong = not isinstance(value, int) or value < 1
        if wrong or (number is not None and value != number):
            expected = f"{type(module).__name__}.{name} = {number or 'a whole number ≥ 1'}"
            _broken(doing, module, expected, repr(value))


def check_prepared(module: nn.Module, prepared: Any) -> dict[str, Tensor]:
    """What `module.prepare` returned; raises InputError unless it is named tensors."""
    if isinstance(prepared, dict):
        wrong = [name for name, value in prepared.items() if not isinstance(value, Tensor)]
        if not wrong and all(isinstance(name, str) for name in prepared):
            return prepared
        found = f"{wrong[0]!r} of the type {type(prepared[wrong[0]]).__name__}" if wrong else "keys"
    else:
        found = type(prepared).__name__
    expected = "prepare(step) → a dictionary of names and tensors"
    _broken(f"running {_user_part(module)[0]}", _user_part(module)[1], expected, found)


def check_map(module: Any, result: Any, size: Sequence[int] | None = None) -> Tensor:
    """What `module` returned for a window; raises InputError unless it is a map
    (B, out_channels, H, W), of height and width `size` where it is given.
    """
    if (
        isinstance(result, Tensor)
        and result.ndim == 4
        and result.shape[1] == module.out_channels
        and (size is None or tuple(result.shape[2:]) == tuple(size))
    ):
        return result
    shape = ("height", "width") if size is None else tuple(int(n) for n in size)
    expected = f"a map (batch, {module.out_channels}, {shape[0]}, {shape[1]})"
    found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
    name, part = _user_part(module)
    _broken(f"running {name}", part, expected, found)


def _user_part(module: nn.Module) -> tuple[str, nn.Module]:
    """The first module in `module` whose class is a user's, and its name; else `module` itself."""
    for part in module.modules():
        if not _is_ours(part) and not type(part).__module__.startswith("torch."):
            return f"the context module {type(part).__name__}", part
    return f"the context module {type(module).__name__}", module


def _is_ours(thing: Any) -> bool:
    cls = thing if inspect.isclass(thing) or inspect.isfunction(thing) else type(thing)
    return cls.__module__.startswith("segweave.")


def _broken(
    doing: str, thing: Any, expected: str, found: str, cause: Exception | None = None
) -> NoReturn:
    cls = thing if inspect.isclass(thing) or inspect.isfunction(thing) else type(thing)
    try:
        file = Path(inspect.getfile(cls))
    except (TypeError, OSError):
        file = None
    raise InputError(doing, file=file, expected=expected, found=found, remedy=REMEDY) from cause
