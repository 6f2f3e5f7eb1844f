"""The one block of convolution and batch norm, the blocks of two convolutions that are made of it,
and the folding of batch norms into the convolutions before them, which makes prediction faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeVar

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from segweave.blocks.linear_norm import TokenBatchNorm

M = TypeVar("M", bound=nn.Module)
Pair = tuple[nn.Module, str, nn.Module, str]
"""The parent and the name of a convolution, the parent and the name of its batch norm."""

_LIBRARIES = ("timm.", "torchvision.", "segmentation_models_pytorch.")
"""Libraries whose modules call their layers in `forward` alone: its trace shows the pairs."""

_CONVOLUTIONS = {
    "timm.layers.conv2d_same.Conv2dSame",
    "segweave.blocks.upsampling.NearestUpsampledConv2d",
}
_NORMS = {"timm.layers.norm_act.BatchNormAct2d"}
"""Layers that compute what torch's own do, with other padding or an activation, or faster."""


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, if given, an activation: (B, C_in, H, W) → (B, C_out, h, w).

    Every network uses it where a batch norm follows a convolution, so that `fold_weights` finds
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


def fold_weights(module: M, keep: Collection[str] = ()) -> M:
    """A copy of `module` in eval mode that computes nothing again that depends on weights alone:
    batch norms are folded into convolutions, weights standardised once.

    Folded are each batch norm that directly follows a convolution in an `nn.Sequential`, such as
    `segweave.blocks.conv_norm.ConvNorm`, each `TokenBatchNorm` that follows a linear layer
    likewise, and, in the modules of timm, torchvision and segmentation_models_pytorch, each one
    that alone reads a convolution's output. A layer with a method `settled` is replaced by what
    that returns: a layer that computes the same while its weights stay. The copy computes
    the same up to rounding, cannot be trained, and its state dict has other names.

    Args:
        module: left as it is.
        keep: names of submodules whose output is read from outside, by a hook: they are not folded.
            Neither are layers that the module holds under several names.
    """
    folded = deepcopy(module).eval()
    kept = {folded.get_submodule(name) for name in keep}
    occurrences = Counter(layer for _, layer in folded.named_modules(remove_duplicate=False))

    def fold(pairs: Iterator[Pair]) -> None:
        for parent, name, norm_parent, norm_name in pairs:
            convolution, norm = getattr(parent, name), getattr(norm_parent, norm_name)
            if (
                occurrences[convolution] == occurrences[norm] == 1
                and not {convolution, norm} & kept
            ):
                setattr(parent, name, _fused(convolution, norm))
                setattr(norm_parent, norm_name, getattr(norm, "act", None) or nn.Identity())

    for parent in list(folded.modules()):
        # Other containers may call their children in another order than they are listed.
        if type(parent).forward is nn.Sequential.forward:
            fold(_in_sequence(parent))
    fold(_in_libraries(folded))
    for path, layer in list(folded.named_modules()):
        if hasattr(layer, "settled") and occurrences[layer] == 1 and layer not in kept:
            parent, name = _parent(folded, path)
            setattr(parent, name, layer.settled())
    return folded


def _fused(layer: Any, norm: Any) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, isinstance(layer, nn.ConvTranspose2d))


def _in_sequence(parent: nn.Module) -> Iterator[Pair]:
    for (name, first), (next_name, second) in pairwise(list(parent.named_children())):
        of_maps = _is_convolution(first) and _is_norm(second)
        of_tokens = isinstance(first, nn.Linear) and isinstance(second, TokenBatchNorm)
        if of_maps or of_tokens:
            yield parent, name, parent, next_name


def _in_libraries(module: nn.Module) -> Iterator[Pair]:
    """The pairs in the outermost modules of libraries that can be traced."""
    if not any(_is_norm(layer) for layer in module.modules()):
        return
    if type(module).__module__.startswith(_LIBRARIES):
        try:
            graph = _Tracer().trace(module)
        except Exception:
            pass  # Its forward depends on values; its parts may be traceable.
        else:
            yield from _in_graph(module, graph)
            return
    for child in list(module.children()):
        yield from _in_libraries(child)


def _in_graph(module: nn.Module, graph: fx.Graph) -> Iterator[Pair]:
    layers = [node for node in graph.nodes if node.op == "call_module"]
    calls = Counter(str(node.target) for node in layers)
    for node in layers:
        before = node.args[0] if node.args else None
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and len(before.users) == 1
            and calls[str(node.target)] == calls[str(before.target)] == 1
        ):
            first, second = str(before.target), str(node.target)
            if _is_convolution(module.get_submodule(first)) and _is_norm(
                module.get_submodule(second)
            ):
                yield *_parent(module, first), *_parent(module, second)


def _parent(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return module.get_submodule(parent), name


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_convolution(m) or _is_norm(m) or super().is_leaf_module(m, module_qualified_name)


def _is_convolution(layer: nn.Module) -> bool:
    # A subclass may standardise its weight first, which folding would not follow.
    kind: Any = type(layer)
    return (
        kind.forward in (nn.Conv2d.forward, nn.ConvTranspose2d.forward)
        or f"{kind.__module__}.{kind.__qualname__}" in _CONVOLUTIONS
    )


def _is_norm(layer: nn.Module) -> bool:
    kind: Any = type(layer)
    plain = (
        issubclass(kind, nn.BatchNorm2d) and kind.forward is nn.BatchNorm2d.forward
    ) or f"{kind.__module__}.{kind.__qualname__}" in _NORMS
    return plain and bool(layer.track_running_stats)
