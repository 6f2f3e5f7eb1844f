"""Reads weights from files that strangers may have written (tensors only, never code) and checks
whether they fit a network.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segweave.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL = "model"
"""The folder of the finished model in a run folder."""
WEIGHTS = "weights.safetensors"
"""The weights in a model folder."""
IMAGENET = "imagenet"
"""What `pretrained` begins with where it names weights of a backbone."""


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
        remedy="use the folder of a training that has ended, or a file of weights",
    )


def is_imagenet(pretrained: str | Path) -> bool:
    """Whether `pretrained` names ImageNet weights of a backbone, not the weights of a network."""
    name, separator, _ = str(pretrained).partition(":")
    return name == IMAGENET and (bool(separator) or not Path(name).exists())


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
            # A pickle of another protocol warns before it is refused; the error below is enough.
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


@dataclass(frozen=True)
class Misfit:
    """Where given tensors differ from the expected ones, by name: `missing` and `unexpected` ones,
    and in words those of another shape (`shapes`).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: dict[str, str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    @property
    def names(self) -> set[str]:
        """The names of all tensors that differ."""
        return {*self.missing, *self.unexpected, *self.shapes}

    @property
    def lines(self) -> list[str]:
        """Every difference in words."""
        return [
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is {shape}" for name, shape in self.shapes.items()),
            *(f"{name} is not part of it" for name in self.unexpected),
        ]

    def __str__(self) -> str:
        """The first three differences."""
        lines = self.lines
        more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
        return "; ".join(lines[:3]) + more


def compare_weights(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Misfit:
    """How `given` tensors differ from the `expected` ones in names and shapes."""
    return Misfit(
        missing=tuple(name for name in expected if name not in given),
        unexpected=tuple(name for name in given if name not in expected),
        shapes={
            name: f"{_shape(given[name])}, not {_shape(tensor)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        },
    )


def load_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    doing: str,
    *,
    file: str | Path | None = None,
    title: str = "",
) -> None:
    """Copy weights into a network; it is changed only if all of them fit.

    Args:
        network: the network.
        weights: one tensor for each entry of its state dict, and no others.
        doing: what is being done, for error messages.
        file: where the weights come from, for error messages.
        title: what the network is called in error messages (default: its class).

    Raises InputError that names the first tensors that differ, and for NaN or infinite ones.
    """
    import torch

    expected = network.state_dict()
    misfit = compare_weights(expected, weights)
    if misfit:
        raise InputError(
            doing,
            file=file,
            expected=f"weights of the network {title or type(network).__name__}, "
            f"{len(expected)} tensors",
            found=str(misfit),
            remedy="these weights belong to another network or to other options",
        )
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                doing,
                file=file,
                expected="finite weights",
                found=f"NaN or infinite ones in {name}",
                remedy="the training diverged; take another checkpoint or a smaller rate",
            )
    network.load_state_dict(weights)


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a single number"
