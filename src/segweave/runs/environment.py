"""What a training ran with: versions, device, threads, code revision, data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import segweave
from segweave import registry
from segweave.data.store import CaseStore
from segweave.recipes import Recipe
from segweave.runs.run_folder import identity_of

FORMAT = 1
_LIBRARIES = ("torch", "lightning", "numpy", "scipy", "pydantic", "safetensors")


def describe_environment(
    recipe: Recipe, store: CaseStore, device: torch.device, parts: dict[str, list[str]]
) -> dict[str, Any]:
    """Everything outside the recipe that a result depends on, as plain values."""
    identity = identity_of(recipe, store.checksum)
    return {
        "format": FORMAT,
        "segweave": segweave.__version__,
        "revision": code_revision(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "seed": recipe.seed,
        "arm": {"digest": identity.digest, "recipe": identity.recipe},
        "data": {
            "name": store.name,
            "checksum": store.checksum,
            # Where the training has not ended, there is no model card to read them from.
            "target": store.target.model_dump(mode="json"),
            "cases": {part: len(ids) for part, ids in parts.items()},
        },
        "plugins": registry.plugin_hashes(),
        "sessions": [describe_session(device, step=0)],
    }


def describe_session(device: torch.device, step: int) -> dict[str, Any]:
    """One start of the training: when, from which step, on what. Results are bit for bit the same
    only where device, threads and libraries are.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "device": str(device),
        "device_name": _device_name(device),
        "threads": torch.get_num_threads(),
        "torch": _version("torch"),
    }


def code_revision() -> str | None:
    """The git revision of the segweave that runs ("+changed" where files differ), None where it
    runs from no checkout.
    """
    folder = Path(segweave.__file__).resolve().parent
    if not (folder.parent.parent / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changed" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env=environment,
    )
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
