"""A tiny store, a tiny recipe, a quick score, and a training that can run as a process."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from segweave.data.case import Case
from segweave.data.inputs import network_label, network_slice, normalise, window_indices
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import SegweaveError
from segweave.recipes import Recipe, parse_recipe
from segweave.registry import networks, register_plugin
from segweave.training import Run, train

FEEDBACK_NETWORK = Path(__file__).parent / "feedback_network.py"
SLICES = 5
PATIENTS = 6


def write_store(path: Path, *, kind: str = "exclusive") -> Store:
    """Rings on noise: six patients of five slices, 20×18 pixels."""
    random = np.random.default_rng(0)
    names = ("background", "ring", "core") if kind == "exclusive" else ("background", "core")
    target = TargetSpec(kind=kind, names=names)
    y, x = np.mgrid[:20, :18]
    with StoreWriter(path, "toy", target) as writer:
        for patient in range(PATIENTS):
            label = np.zeros((SLICES, 20, 18), np.uint8)
            for index in range(SLICES):
                radius = np.hypot(y - random.uniform(8, 12), x - random.uniform(7, 11))
                label[index][radius < 5] = 1
                if kind == "exclusive":
                    label[index][radius < 3] = 2
            image = label * 60 + random.normal(50, 6, label.shape)
            image = image.clip(0, 255).astype(np.uint8)[:, None]
            writer.add(
                Case(
                    id=f"patient{patient}_a",
                    group=f"patient{patient}",
                    image=image,
                    label=label,
                    stack="space",
                    spacing=(10.0, 1.5, 1.5),
                )
            )
        ids = [f"patient{patient}_a" for patient in range(PATIENTS)]
        return writer.finish({"toy": {"train": ids[:4], "valid": ids[4:5], "test": ids[5:]}})


def recipe(**changes: object) -> Recipe:
    """A recipe of six epochs of five steps; `changes` are dotted keys with __ for a dot."""
    values: dict = {
        "arm": "toy",
        "network": {"name": "unet", "options": {"width": 2, "levels": 3}},
        "input": {"size": [16, 16]},
        "training": {
            "epochs": 6,
            "batch_size": 4,
            "optimiser": {"name": "adamw", "rate": 0.01},
            "augmentation": {"rotation": 30, "scale": 0.2, "mirror": "both"},
        },
    }
    for key, value in changes.items():
        place = values
        *parents, last = key.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return parse_recipe(values)


def score(
    network: torch.nn.Module, spec: InputSpec, target: TargetSpec, cases: Iterable[Case]
) -> dict[str, float]:
    """Dice of everything that is not background, on the network's grid."""
    overlap = sizes = 0.0
    device = next(network.parameters()).device
    for case in cases:
        numbers = normalise(case, spec)
        arrays = [network_slice(case, k, spec, numbers) for k in range(case.slices)]
        maps = [torch.from_numpy(array).to(device) for array in arrays]
        for k in range(case.slices):
            window = [maps[j] for j in window_indices(case.slices, k, spec.slices, spec.edge)]
            inputs = {}
            if getattr(network.network, "feedback", None) is not None:
                inputs["mask"] = network.network.feedback.first(torch.stack(window))[None]
            logits = network(torch.stack(window)[None], **inputs).logits
            predicted = logits.argmax(1) > 0 if target.kind == "exclusive" else logits[:, 0] > 0
            truth = torch.from_numpy(network_label(case, k, spec) > 0).to(device)
            overlap += 2 * float((predicted & truth).sum())
            sizes += float(predicted.sum() + truth.sum())
    return {"dice": overlap / max(sizes, 1.0)}


@contextmanager
def feedback_network_registered() -> Iterator[None]:
    """Let the plug-in of `feedback_network.py` be known inside the block."""
    cards, hashes = dict(networks._found()), networks.plugin_hashes
    register_plugin(FEEDBACK_NETWORK)
    try:
        yield
    finally:
        networks._cards, networks._plugin_hashes = cards, hashes


def train_process(
    store: Path, out: Path, chosen: Recipe, messages: Path, file_limit: int | None = None
) -> None:
    """Train in this process; what is raised goes to `messages`, its exit code is the process's."""
    torch.set_num_threads(1)
    register_plugin(FEEDBACK_NETWORK)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    try:
        train(chosen, store, out, score=score)
    except SegweaveError as error:
        messages.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        sys.exit(error.exit_code)


def run_of(store: Store, out: Path, **changes: object) -> Run:
    """A training of two epochs; `changes` as in `recipe`."""
    changes = {"training__epochs": 2, **changes}
    return train(recipe(**changes), store, out, score=score)
