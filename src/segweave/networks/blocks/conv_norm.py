"""The one block of convolution and batch norm, which prediction folds into one convolution, and the
blocks of two convolutions that are made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, if given, an activation: (B, C_in, H, W) → (B, C_out, h, w).

    Every network uses it where a batch norm follows a convolution, so that `fold_batch_norms` finds
    each pair. Its tensors are named `0.*` (convolution) and `1.*` (batch norm).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel or (height, width); odd numbers where `padding` is absent.
        activation: called without arguments, makes the activation; None for none.
        transposed: whether the convolution is a transposed one.
        bias: whether the convolution has a bias; the batch norm makes it redundant, but released
            networks have it.
        padding: of the convolution; by default half the extent of the kernel, which at stride 1
            keeps the size, and for a transposed convolution 0.
        eps: what the batch norm adds to the variance.
        options: further ones of the convolution (`stride`, `dilation`, `groups`,
            `output_padding`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        activation: Callable[[], nn.Module] | None = None,
        transposed: bool = False,
        bias: bool = False,
        padding: int | tuple[int, int] | None = None,
        eps: float = 1e-5,
        **options: Any,
    ) -> None:
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        if padding is None:
            kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
            dilation = options.get("dilation", 1)
            spread = (dilation, dilation) if isinstance(dilation, int) else dilation
            rows, columns = (d * (k - 1) // 2 for d, k in zip(spread, kernel, strict=True))
            padding = (0, 0) if transposed else (rows, columns)
        layers: list[nn.Module] = [
            kind(in_channels, out_channels, kernel_size, padding=padding, bias=bias, **options),
            nn.BatchNorm2d(out_channels, eps=eps),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


def relu() -> nn.Module:
    """A ReLU in place, the activation of most blocks."""
    return nn.ReLU(inplace=True)


class DoubleConvolution(nn.Sequential):
    """The block of the UNet family: twice (3×3 convolution with bias, batch norm, ReLU), (B, C_in,
    H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # Unpacked, so that the tensors keep the names 0, 1, 3, 4 of the released code.
        super().__init__(
            *ConvNorm(in_channels, out_channels, 3, bias=True, activation=relu),
            *ConvNorm(out_channels, out_channels, 3, bias=True, activation=relu),
        )


class ResidualDoubleConvolution(nn.Module):
    """MT-UNet's block: y = two 3×3 convolutions of x, each with batch norm, a ReLU between; result
    = ReLU(y + BN(1×1 convolution of y)), (B, C_in, H, W) → (B, C_out, H, W). Only the 1×1
    convolution has a bias.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *ConvNorm(in_channels, out_channels, 3, activation=relu),
            *ConvNorm(out_channels, out_channels, 3),
        )
        self.mix = ConvNorm(out_channels, out_channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        y = self.body(x)
        return (y + self.mix(y)).relu()
