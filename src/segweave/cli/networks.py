"""`segweave networks`: the networks that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from segweave.registry import NetworkCard

EXAMPLES = (
    ("segweave networks", "a table"),
    ("segweave networks unet", "one network: positions, sizes, weights"),
    ("segweave networks --json", "every field of every card, for scripts"),
    ("segweave --plugin mine.py networks", "with those of a file of yours"),
)


POSITIONS = {
    "encoder": "beside the encoder: the image, embedded to the bottleneck's channels and size",
    "bottleneck": "the map between encoder and decoder",
    "skips": "each map of the encoder that the decoder joins",
    "decoder": "the map before the head",
    "output": "the logits",
}
"""What a position means unless a card explains it."""


def networks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this network, with all details.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The cards as JSON, for scripts.")] = False,
) -> None:
    """List the networks: name, image sizes that they take, paper. With a NAME: all about one.

    A network is what a context module is woven into. The names go into a recipe
    (network.name) or into segweave.create_network(name).
    """
    from segweave.cli.show import cards_as_json, facts, table
    from segweave.registry import networks as found

    cards = found.cards() if name is None else {name: found.card(name)}
    if json:
        cards_as_json(cards)
        return
    if name is not None:
        facts(f"{name}: {cards[name].title}", _details(cards[name]))
        return
    table(
        "Networks",
        ("name", "what it is", "image sizes", "forms", "paper"),
        [
            (c.name, c.title, sizes(c.fixed, c.divisor, c.smallest), ", ".join(c.forms), c.paper)
            for c in cards.values()
        ],
    )


def _details(card: NetworkCard) -> dict[str, Any]:
    count, reason = card.unfolded
    details: dict[str, Any] = {
        "paper": card.paper,
        "licence": card.licence,
        "forms": ", ".join(card.forms),
        "image sizes": sizes(card.fixed, card.divisor, card.smallest),
        "positions": {**POSITIONS, **card.positions},
    }
    if card.weights:
        details["weights"] = {entry["source"]: _weights(entry) for entry in card.weights}
    if count:
        details["batch norms that are not folded"] = f"{count}: {reason}"
    return details


def _weights(entry: dict[str, Any]) -> str:
    backbone = f" of {entry['backbone']}" if "backbone" in entry else ""
    return (
        f"{entry['tag']}{backbone}, {entry['licence']}, mean "
        + " ".join(map(str, entry["mean"]))
        + ", sd "
        + " ".join(map(str, entry["sd"]))
    )


def sizes(fixed: tuple[tuple[int, int] | int, ...], divisor: int, smallest: int) -> str:
    """The size rule of a network's card in words."""
    if fixed:
        allowed = [(n, n) if isinstance(n, int) else n for n in fixed]
        return " or ".join(f"{height}×{width}" for height, width in allowed) + " only"
    if divisor == 1:
        return f"any from {smallest}×{smallest}"
    return f"multiples of {divisor} from {smallest}×{smallest}"
