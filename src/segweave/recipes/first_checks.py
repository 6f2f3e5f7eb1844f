"""What can be wrong with a recipe, found before torch is imported and anything is read."""

from __future__ import annotations

from collections.abc import Sequence

from segweave import registry
from segweave.data.specs import AugmentationTerm, TargetSpec
from segweave.errors import InputError, UsageError, nearest
from segweave.recipes.recipe import LossTerm, Recipe
from segweave.registry import Size, broken_rule
from segweave.weights import is_imagenet, weights_file

SIZE_RULES = ("divisor", "smallest", "fixed")
"""The attributes of a network that say which sizes it takes."""
# Options that change no size rule in any network, so that the card's rules hold.
_HARMLESS = {"width", "classes"}


def check_recipe(recipe: Recipe) -> None:
    """Raise UsageError for names, forms and options that do not exist and for a size that the
    network does not take, as far as the cards show it.
    """
    network = registry.networks.card(recipe.network.name)
    _check_form(f"network {network.name}", recipe.network.form, network.forms)
    start = recipe.network.pretrained
    if start is not None and not is_imagenet(start) and not weights_file(start).is_file():
        raise InputError(
            "reading weights to start from",
            file=start,
            expected="a finished run, a model folder or a file of weights",
            found="nothing there",
            remedy="check network.pretrained (--start-from)",
        )
    doing = f"creating the network {network.name!r}"
    registry.networks.check_options(network.name, recipe.network.options, doing)
    if recipe.context is not None:
        context = registry.contexts.card(recipe.context.name)
        if context.kind != "control":
            _check_form(f"context module {context.name}", recipe.context.form, context.forms)
    for term in recipe.training.loss:
        registry.losses.card(term.name)
    if isinstance(recipe.training.augmentation, tuple):
        for augmentation in recipe.training.augmentation:
            assert isinstance(augmentation, AugmentationTerm)
            registry.augmentations.card(augmentation.name)
    if not set(recipe.network.options) - _HARMLESS:
        rules = {name: getattr(network, name) for name in SIZE_RULES}
        check_input_size(recipe, **rules)


def check_losses(terms: Sequence[LossTerm], target: TargetSpec) -> None:
    """Raise UsageError for a loss that does not exist, and for one of images where the target is
    classes or the other way round.
    """
    for term in terms:
        card = registry.losses.card(term.name)
        if card.task != target.task:
            fitting = [n for n, c in registry.losses.cards().items() if c.task == target.task]
            raise UsageError(
                f"creating the loss {term.name!r}",
                expected=f"a loss for a target of kind {target.kind}: {', '.join(fitting)}",
                found=f"{term.name}, which compares "
                + ("images" if card.task == "image" else "classes"),
                remedy="set training.loss in the recipe, or choose another store",
            )


def check_input_size(
    recipe: Recipe, *, divisor: int = 1, smallest: int = 1, fixed: Sequence[Size | int] = ()
) -> None:
    """Raise UsageError where `input.size` breaks the network's size rule, see `broken_rule`."""
    size = recipe.input.size
    broken = size and broken_rule(size, divisor=divisor, smallest=smallest, fixed=fixed)
    if not size or not broken:
        return
    expected, nearby = broken
    raise UsageError(
        f"choosing the size of images for the network {recipe.network.name}",
        expected=expected,
        found=f"input.size: [{size[0]}, {size[1]}]",
        remedy=" or ".join(f"input.size: [{h}, {w}]" for h, w in nearby),
    )


def _check_form(what: str, form: str, forms: Sequence[str]) -> None:
    # A form matters only where the card names both.
    if len(forms) > 1 and form not in forms:
        raise UsageError(
            f"choosing a form of the {what}", found=repr(form), remedy=nearest(form, forms)
        )
