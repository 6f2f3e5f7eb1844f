"""Reads weights from files that strangers may have written: tensors only, never code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segweave.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "model"
"""The folder of the finished model in a run folder."""
WEIGHTS = "weights.safetensors"
"""The weights in a model folder."""


def weights_file(path: str | Path) -> Path:
    """The file of weights that `path` means: itself, or that of a run folder or model folder.

    Raises InputError for a folder that holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for file in (path / MODEL / WEIGHTS, path / WEIGHTS):
        if file.is_file():
            return file
    raise InputError(
        "reading weights",
        file=path,
        expected=f"a run folder with {MODEL}/{WEIGHTS}, or a model folder with {WEIGHTS}",
        found=", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "an empty folder",
        remedy="give the folder of a training that has ended, or a file of weights",
    )


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
    if not isinstance(content, dict) or not all(
        isinstance(v, torch.Tensor) for v in content.values()
    ):
        raise InputError(
            "reading weights",
            file=file,
            expected="a state dict (names and tensors)",
            found=type(content).__name__,
        )
    return content
