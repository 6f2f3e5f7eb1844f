"""Recipes: YAML files that set everything about a training, and the published settings."""

from __future__ import annotations

from segweave.recipes.contexts import ContextSetting, chosen_sets, network_changes
from segweave.recipes.identity import ArmIdentity, arm_digest, arm_identity
from segweave.recipes.loading import (
    as_set,
    list_recipe_parts,
    list_recipes,
    load_recipe,
    parse_recipe,
    recipe_file,
)
from segweave.recipes.recipe import (
    Recipe,
    derived_arm,
    differences,
    dotted_differences,
    read_yaml,
)

__all__ = [
    "ArmIdentity",
    "ContextSetting",
    "Recipe",
    "arm_digest",
    "arm_identity",
    "as_set",
    "chosen_sets",
    "derived_arm",
    "differences",
    "dotted_differences",
    "list_recipe_parts",
    "list_recipes",
    "load_recipe",
    "network_changes",
    "parse_recipe",
    "read_yaml",
    "recipe_file",
]
