"""The identity of an arm: a digest of its resolved recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from segweave.recipes.recipe import Recipe
from segweave.storage import canonical_json, sha256_of, sha256_of_text
from segweave.weights import is_imagenet, weights_file

_NOT_IDENTITY = ("format", "arm", "seed", "fold", "margin", "margin_reason")


@dataclass(frozen=True)
class ArmIdentity:
    """The identity of an arm: runs with one `digest` are one arm.

    Attributes:
        digest: SHA-256 over the canonical JSON of what the recipe sets, as hexadecimal text.
        recipe: the resolved recipe as plain values, without seed, fold, arm name and margin; in
            place of paths it has digests of what they lead to, so that it names no folder.
    """

    digest: str
    recipe: dict[str, Any]


def arm_identity(
    recipe: Recipe, data: str | None = None, pretrained: str | None = None
) -> ArmIdentity:
    """The identity of the arm that a recipe describes.

    Only values that differ from their default count, so that a field which a later version adds
    changes no digest. `weaving` counts only where there is a context module.

    Args:
        recipe: the resolved recipe.
        data: checksum of the data that is trained on; it stands for `data.store`.
        pretrained: digest of the weights that the network starts from; it stands for
            `network.pretrained`. By default that is the SHA-256 of the file, where it is one.
    """
    values = recipe.to_dict()
    settings = _settings(recipe)
    for content in (values, settings):
        for name in _NOT_IDENTITY:
            content.pop(name, None)
        if recipe.context is None:
            content.pop("weaving", None)
        content["data"] = {**content.get("data", {}), "store": data}
    if recipe.network.pretrained is not None:
        start = pretrained or _content_of(recipe.network.pretrained)
        values["network"]["pretrained"] = settings["network"]["pretrained"] = start
    return ArmIdentity(sha256_of_text(canonical_json(settings)), values)


def arm_digest(recipe: Recipe, data: str | None = None, pretrained: str | None = None) -> str:
    """The digest of `arm_identity`."""
    return arm_identity(recipe, data, pretrained).digest


def _settings(section: BaseModel) -> dict[str, Any]:
    """The values of a section that differ from their defaults, and those without a default."""
    result = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if field.is_required() or value != field.get_default(call_default_factory=True):
            result[name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _settings(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 16 and 16.0 are one setting
    return value


def _content_of(pretrained: str) -> str:
    """The digests of the files that `network.pretrained` names; without a file, the name itself."""
    if not is_imagenet(pretrained):
        path = Path(pretrained)
        return f"sha256:{sha256_of(weights_file(path))}" if path.exists() else pretrained
    # imagenet:FILE, or imagenet:BACKBONE=FILE,BACKBONE=FILE
    prefix, separator, files = pretrained.partition(":")
    parts = []
    for entry in files.split(","):
        backbone, equals, file = entry.rpartition("=")
        content = f"sha256:{sha256_of(file)}" if Path(file).is_file() else file
        parts.append(backbone + equals + content)
    return prefix + separator + ",".join(parts)
