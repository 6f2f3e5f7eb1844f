"""Writes a finished model: its weights, and the card that describes it and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import segweave
from segweave.data.boxes import FROM_REFERENCE
from segweave.data.specs import TargetSpec
from segweave.data.store import CaseStore
from segweave.networks import Prompt
from segweave.recipes import Recipe
from segweave.runs.checkpoints import Checkpoint
from segweave.runs.run_folder import CARD, WEIGHTS
from segweave.storage import atomic_write, sha256_of_bytes, write_json

FORMAT = 1
LIMITS = (
    "For research. Not a medical device and not checked for clinical use. It was trained on the "
    "data named here alone: images from other scanners, protocols, populations or with other "
    "findings may be segmented wrongly without any sign of it. It gives one of its classes to "
    "every pixel and does not notice an image of something else. The validation scores chose or "
    "watched the training and are too kind; take scores from test cases."
)


def write_model(
    folder: Path,
    recipe: Recipe,
    target: TargetSpec,
    network: nn.Module,
    checkpoint: Checkpoint,
    store: CaseStore,
    parts: dict[str, list[str]],
    ended: str = "",
    recipe_digest: str | None = None,
) -> None:
    """Write `weights.safetensors`, then `card.json`, into `folder`, from a checkpoint of
    `network`. The card comes last: where it is, the model is whole. `ended` says why the training
    ended before its last step; `recipe_digest` identifies the arm (`Run.identity`).
    """
    card = describe_model(recipe, target, network, checkpoint, store, parts, ended)
    write_model_folder(folder, checkpoint.weights, card | {"recipe_digest": recipe_digest})


def write_model_folder(folder: Path, tensors: Mapping[str, Tensor], card: dict[str, Any]) -> None:
    """Write the weights, then the card with their checksum."""
    from safetensors.torch import save

    separate = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
    }
    # One entry alone: several come in an order that differs from run to run.
    content = save(separate, metadata={"segweave": str(FORMAT)})
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
    write_json(folder / CARD, card | {"weights_sha256": sha256_of_bytes(content)})


def describe_model(
    recipe: Recipe,
    target: TargetSpec,
    network: nn.Module,
    checkpoint: Checkpoint,
    store: CaseStore,
    parts: dict[str, list[str]],
    ended: str = "",
) -> dict[str, Any]:
    """The model card of a training; `ended` says why it ended before its last step."""
    groups = store.groups
    return describe_network(recipe, target, network) | {
        "training_data": {
            "name": store.name,
            "checksum": store.checksum,
            "cases": len(parts["training"]),
            "groups": sorted({groups[id] for id in parts["training"]}),
            "validation_groups": sorted({groups[id] for id in parts.get("validation", [])}),
        },
        "scores": {
            "checkpoint": recipe.training.checkpoint,
            "step": checkpoint.step,
            "epoch": checkpoint.epoch,
            **_boxes_of_scores(network),
            # JSON has no NaN: a score that could not be computed is null.
            "validation": {
                name: value if math.isfinite(value) else None
                for name, value in checkpoint.scores.items()
            },
        },
        "ended": ended or "all steps were done",
        "limits": LIMITS,
    }


def describe_network(recipe: Recipe, target: TargetSpec, network: nn.Module) -> dict[str, Any]:
    """What a model card states of the network, its input and its target, as plain values."""
    context = recipe.context.name if recipe.context else None
    title = recipe.network.name
    if context is not None:
        title += f" + {context} at {recipe.weaving.at}, {recipe.slices} slices"
    return {
        "format": FORMAT,
        "segweave": segweave.__version__,
        "title": title,
        "arm": recipe.arm,
        "network": recipe.network.name,
        "context": context,
        "parameters": sum(p.numel() for p in network.parameters()),
        "input": recipe.input.model_dump(mode="json"),
        **_prompt(network),
        "target": target.model_dump(mode="json"),
        "classes": list(target.names),
        "recipe": recipe.to_dict(),
    }


def _prompt(network: nn.Module) -> dict[str, str]:
    """What a network is shown besides the image, for its card."""
    prompt: Prompt | None = getattr(network, "prompt", None)
    return {} if prompt is None else {"prompt": prompt.kind}


def _boxes_of_scores(network: nn.Module) -> dict[str, str]:
    """Where the boxes came from with which the scores were computed."""
    return {"boxes": FROM_REFERENCE} if _prompt(network) else {}
