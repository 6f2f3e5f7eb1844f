"""`segweave contexts`: the context modules that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from segweave.registry import ContextCard

EXAMPLES = (
    ("segweave contexts", "all of them"),
    ("segweave contexts --kind control", "what a module has to beat"),
    ("segweave contexts --json", "every field of every card, for scripts"),
)

KINDS = ("module", "ablation", "control")


def contexts(
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only these: " + ", ".join(KINDS) + ".")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The cards as JSON, for scripts.")] = False,
) -> None:
    """List the context modules: the papers' modules, their ablations, and the controls.

    A module reads the feature maps of neighbouring slices and returns one map. A gain over
    the bare network that the control "conv" shows too comes from seeing the neighbours, not
    from the module.
    """
    from segweave.cli.show import cards_as_json, table
    from segweave.errors import UsageError, nearest
    from segweave.registry import contexts as found

    if kind is not None and kind not in KINDS:
        raise UsageError(
            "listing context modules", found=f"--kind {kind}", remedy=nearest(kind, KINDS)
        )
    cards = {name: c for name, c in found.cards().items() if kind in (None, c.kind)}
    if json:
        cards_as_json(cards)
        return
    order = {name: place for place, name in enumerate(KINDS)}
    table(
        "Context modules",
        ("name", "kind", "what it does", "forms", "source"),
        [
            (
                c.name,
                c.kind,
                c.title,
                ", ".join(c.forms),
                "; ".join(filter(None, (c.paper, c.equations))),
            )
            for c in sorted(cards.values(), key=lambda c: (order.get(c.kind, 9), c.name))
        ],
    )


def _source(card: ContextCard) -> str:
    return ", ".join(part for part in (card.paper, card.equations) if part)
