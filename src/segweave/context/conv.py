"""The control `conv`: a plain convolution over the stacked steps with as many parameters as
`sa-lstm`, which shows what seeing the neighbours is worth without the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context._options import odd_kernel
from segweave.context.base import ContextModule, Prepared
from segweave.errors import UsageError
from segweave.registry import ContextCard

CARD = ContextCard(
    name="conv",
    title="Convolution over the stacked steps (control)",
    entry="StackedConvolution",
    forms=("paper", "released"),
    kind="control",
)


TOLERANCE = 0.05
"""How far the number of parameters may be from that of `sa-lstm`."""


class StackedConvolution(ContextModule):
    """(B, T, C, H, W) → (B, C_out, H, W): convolution of the T·C stacked channels, ReLU, 1×1
    convolution.

    A sequence shorter than `steps` is filled up by repeating its edges (with `both_sides` around
    the middle step, else before the first one); a longer one raises UsageError.

    The width between the two convolutions is the one that brings the number of parameters nearest
    to that of `sa-lstm` with the same options: within 5 %. Where one channel of it is too coarse a
    step, channels that read the current step alone make up the rest. (One or two channels and
    kernel 1, or a single step, allow no finer step than about 10 %.)

    Args:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns, by default `channels`.
        form: "paper" or "released": the form of the `sa-lstm` that it is compared with.
        both_sides: whether the current step is the middle one, else the last one.
        steps: length of the longest sequence.
        kernel_size: side of the kernel, odd; default: that of `sa-lstm`.
        hidden_channels: those of the `sa-lstm` that it is compared with.

    Raises:
        UsageError: an even kernel, or no steps.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: str = "paper",
        both_sides: bool = False,
        steps: int = 3,
        kernel_size: int | None = None,
        hidden_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise UsageError(
                "creating the control 'conv'", expected="steps of at least 1", found=str(steps)
            )
        if kernel_size is not None:
            odd_kernel(kernel_size, "paper")
        self.channels = channels
        self.out_channels = channels if out_channels is None else out_channels
        self.form = form
        self.both_sides = both_sides
        self.steps = steps
        options: dict[str, Any] = {"kernel_size": kernel_size, "hidden_channels": hidden_channels}
        kernel, parameters = _twin(
            channels,
            out_channels=out_channels,
            form=form,
            both_sides=both_sides,
            **{name: value for name, value in options.items() if value is not None},
        )
        # k² weights for each channel read and a bias lead to each channel between, C_out weights
        # from it; the last convolution has C_out biases.
        each, alone = (
            read * kernel**2 + 1 + self.out_channels for read in (steps * channels, channels)
        )
        rest = parameters - self.out_channels
        width, extra = max(1, round(rest / each)), 0
        if abs(width * each - rest) > TOLERANCE * parameters and rest > each:
            width = rest // each
            extra = round((rest - width * each) / alone)
        self.stacked = nn.Conv2d(steps * channels, width, kernel, padding=kernel // 2)
        self.current_alone = (
            nn.Conv2d(channels, extra, kernel, padding=kernel // 2) if extra else None
        )
        self.conv = nn.Conv2d(width + extra, self.out_channels, kernel_size=1)

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → the same map: cutting the convolution by step would save nothing, as each
        step meets other weights in each window.
        """
        return {"map": step}

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Maps of at most `steps` steps in reading order → (B, C_out, H, W)."""
        count = len(prepared)
        if not 1 <= count <= self.steps:
            raise UsageError(
                "running the control 'conv'",
                expected=f"1 to {self.steps} steps, as many as it was created for",
                found=f"{count} steps",
                remedy=f"create it with steps={count}",
            )
        before = self.current(self.steps) - self.current(count)
        maps = [
            prepared[min(max(index - before, 0), count - 1)]["map"] for index in range(self.steps)
        ]
        read: Tensor = self.stacked(torch.cat(maps, 1))
        if self.current_alone is not None:
            read = torch.cat([read, self.current_alone(maps[self.current(self.steps)])], 1)
        joined: Tensor = self.conv(F.relu(read))
        return joined


def _twin(channels: int, **options: Any) -> tuple[int, int]:
    """Kernel size and number of parameters of the `sa-lstm` that this control is compared with."""
    from segweave.context import create_context

    # On the meta device nothing is allocated, and no start value is drawn from the caller's stream.
    with torch.device("meta"):
        twin = create_context("sa-lstm", channels, **options)
    kernel = max(m.kernel_size[0] for m in twin.modules() if isinstance(m, nn.Conv2d))
    return kernel, sum(parameter.numel() for parameter in twin.parameters())
