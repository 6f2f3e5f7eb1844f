"""`segweave networks`: the networks that are there."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = (
    ("segweave networks", "a table"),
    ("segweave networks --json", "every field of every card, for scripts"),
    ("segweave --plugin mine.py networks", "with those of a file of yours"),
)


def networks(
    json: Annotated[bool, typer.Option("--json", help="The cards as JSON, for scripts.")] = False,
) -> None:
    """List the networks: name, image sizes that they take, paper.

    A network is what a context module is woven into. The names go into a recipe
    (network.name) or into segweave.create_network(name).
    """
    from segweave.cli.show import cards_as_json, table
    from segweave.registry import networks as found

    cards = found.cards()
    if json:
        cards_as_json(cards)
        return
    table(
        "Networks",
        ("name", "what it is", "image sizes", "forms", "paper"),
        [
            (c.name, c.title, sizes(c.fixed, c.divisor, c.smallest), ", ".join(c.forms), c.paper)
            for c in cards.values()
        ],
    )


def sizes(fixed: tuple[tuple[int, int] | int, ...], divisor: int, smallest: int) -> str:
    """The size rule of a network's card in words."""
    if fixed:
        allowed = [(n, n) if isinstance(n, int) else n for n in fixed]
        return " or ".join(f"{height}×{width}" for height, width in allowed) + " only"
    if divisor == 1:
        return f"any from {smallest}×{smallest}"
    return f"multiples of {divisor} from {smallest}×{smallest}"
