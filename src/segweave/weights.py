"""Reads weights from files that strangers may have written: tensors only, never code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from segweave.errors import InputError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a torch checkpoint (a state dict, or one under
    "state_dict" or "model").

    Raises InputError for a missing or damaged file and for a pickle that holds more than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path)
    if not file.is_file():
        raise InputError("reading weights", file=file, expected="a file", found="nothing there")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"reading weights: {error}", file=file) from error
    try:
        with warnings.catch_warnings():
            # A pickle of another protocol warns before it is refused; the error below says it all.
            warnings.simplefilter("ignore")
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            "reading weights",
            file=file,
            expected="a safetensors file or a torch file that holds tensors alone",
            found=f"{type(error).__name__} while reading it safely",
            remedy="a file that runs code when loaded is refused; save its state dict anew, "
            "with safetensors.torch.save_file",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(
            "reading weights",
            file=file,
            expected="a state dict (names and tensors)",
            found=type(content).__name__,
        )
    return content
