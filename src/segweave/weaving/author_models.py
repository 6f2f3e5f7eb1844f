"""The three whole models that the authors released, as weavings, and the names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from segweave.errors import UsageError, nearest
from segweave.networks import create_network
from segweave.weaving.factory import weave
from segweave.weaving.woven import WovenNetwork


class _Model(NamedTuple):
    context: str
    attention_size: int


_MODELS: Mapping[str, _Model] = {
    "salstm": _Model("sa-lstm", 88 * 88),
    "lstm-sa": _Model("lstm-sa", 88 * 88),
    "sa-embedded-lstm": _Model("sa-embedded-lstm", 224 * 224),
}

RELEASED_MODELS = tuple(_MODELS)
"""Names that `released_model` takes."""


def released_model(
    name: str,
    *,
    classes: int = 4,
    in_channels: int = 1,
    attention_size: int | None = None,
    width: int = 64,
    kernel_size: int = 5,
    hidden_channels: Sequence[int] | None = None,
) -> WovenNetwork:
    """The whole released model `salstm`, `lstm-sa` or `sa-embedded-lstm`.

    MT-UNet with `width` output maps runs on three slices; the context module in form `released` is
    applied after it at full resolution (position `output`), and its 1×1 convolution returns the
    logits of `classes` classes. The network is the same for the three slices.

    Args:
        name: one of RELEASED_MODELS.
        classes: channels of the logits.
        in_channels: channels of a slice.
        attention_size: the number under the root of the attention; the training scripts have 7744
            for the first two and 50176 for the third, which takes no slice of more pixels.
        width: channels of the network's first stage, of its output and of the module.
        kernel_size: kernel of the gate convolutions.
        hidden_channels: hidden width of each layer of the module, one layer of `width` if None.

    Raises UsageError for an unknown name, and where the module does not take the options.
    """
    if name not in _MODELS:
        raise UsageError(
            "choosing a released model", found=repr(name), remedy=nearest(name, _MODELS)
        )
    model = _MODELS[name]
    network = create_network("mt-unet", in_channels=in_channels, classes=width, width=width)
    return weave(
        network,
        model.context,
        at="output",
        join="replace",
        slices=3,
        form="released",
        classes=classes,
        context_options={
            "kernel_size": kernel_size,
            "hidden_channels": tuple(hidden_channels or (width,)),
            "attention_size": attention_size or model.attention_size,
        },
    )
