"""Whether ImageNet weights for colour pictures can be had without the network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from segweave.weights import IMAGENET

_ENCODER = "tf_efficientnet_lite0"


def weights_at_hand() -> str | None:
    """The text "imagenet" where timm has the weights of `timm-unet`'s encoder in its local cache,
    so that nothing is downloaded; None elsewhere, and without timm.
    """
    if find_spec("timm") is None:
        return None
    import timm

    config = timm.get_pretrained_cfg(_ENCODER)
    if config is None:
        return None
    if config.hf_hub_id and find_spec("huggingface_hub") is not None:
        from huggingface_hub import try_to_load_from_cache

        for name in ("model.safetensors", "pytorch_model.bin"):
            if isinstance(try_to_load_from_cache(config.hf_hub_id, name), str):
                return IMAGENET
    if config.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        if file.is_file():
            return IMAGENET
    return None
