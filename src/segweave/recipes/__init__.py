"""Recipes: one YAML file that says everything about a training, and the published settings."""

from __future__ import annotations

from segweave.recipes.loading import list_recipes, load_recipe, parse_recipe
from segweave.recipes.recipe import Recipe, differences

__all__ = ["Recipe", "differences", "list_recipes", "load_recipe", "parse_recipe"]
