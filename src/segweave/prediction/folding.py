"""Folds batch norms into the convolutions before them, which makes prediction faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


def fold_batch_norms(module: M, keep: Collection[str] = ()) -> M:
    """A copy of `module` in eval mode, in which each batch norm that directly follows a convolution
    in an `nn.Sequential` is folded into it.

    It computes the same up to rounding, cannot be trained, and its state dict has other names.
    `keep` names submodules whose own output is read from outside, by a hook: they are left alone.
    So are layers that the module holds in several places.
    """
    folded = deepcopy(module).eval()
    kept = {folded.get_submodule(name) for name in keep}
    places = Counter(layer for _, layer in folded.named_modules(remove_duplicate=False))
    for parent in list(folded.modules()):
        # Other containers may call their children in another order than they are listed.
        if type(parent).forward is not nn.Sequential.forward:
            continue
        for (name, convolution), (next_name, norm) in pairwise(list(parent.named_children())):
            if (
                isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
                and isinstance(norm, nn.BatchNorm2d)
                and norm.track_running_stats
                and places[convolution] == places[norm] == 1
                and not {convolution, norm} & kept
            ):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(parent, next_name, nn.Identity())
    return folded
