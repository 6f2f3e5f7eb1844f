"""`segweave networks`: the networks that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from segweave.registry import NetworkCard

EXAMPLES = (
    ("segweave networks", "a table"),
    ("segweave networks unet", "one network: positions, sizes, weights"),
    (
        "segweave networks unet --size 256 256 --context sa-lstm --slices 3",
        "what a window of it costs, step by step",
    ),
    ("segweave networks --json", "every field of every card, for scripts"),
    ("segweave --plugin mine.py networks", "with those of a file of yours"),
    ("segweave networks --check", "try every network with two modules at every position"),
    ("segweave networks --check --only unet --only mt-unet", "these alone"),
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
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH",
            help="With a NAME: what one image of this size costs (parameters, "
            "multiply-accumulates, seconds and memory of a forward pass on this CPU).",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --size: with this context module woven in."),
    ] = None,
    at: Annotated[
        str, typer.Option(metavar="POSITION", help="Where the context module is.")
    ] = "bottleneck",
    slices: Annotated[int, typer.Option(metavar="N", help="Length of the window.")] = 1,
    channels: Annotated[int, typer.Option(metavar="N", help="Channels of an image.")] = 3,
    classes: Annotated[int, typer.Option(metavar="N", help="Channels of the logits.")] = 1,
    form: Annotated[
        str, typer.Option(metavar="FORM", help="paper or released, where a card names both.")
    ] = "released",
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Try them at a reduced size, alone and with the context modules sa-lstm and conv "
            "at every position: build, train one step, predict a volume. Some minutes.",
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="With --check: this network; may be repeated.", show_default=False
        ),
    ] = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count",
            help="With --size: count parameters and multiply-accumulates without running anything.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The cards as JSON, for scripts.")] = False,
) -> None:
    """List the networks: name, image sizes that they take, paper. With a NAME: all about one; with
    --size also what it costs.

    With --check the exit code is 1 where a network fails, and the last line names it.

    A network is what a context module is woven into. The names go into a recipe
    (network.name) or into segweave.create_network(name).
    """
    from segweave.cli.show import cards_as_json, facts, table
    from segweave.registry import networks as found

    if check or only:
        _check_networks([*([name] if name else []), *(only or [])], asked=check, as_json=json)
        return
    cards = found.cards() if name is None else {name: found.card(name)}
    if json and size is None:
        cards_as_json(cards)
        return
    if size is not None:
        _check_named(name)
        _print_costs(
            str(name),
            size,
            (context, at, slices),
            (channels, classes),
            form,
            run=not count,
            as_json=json,
        )
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


def _check_named(name: str | None) -> None:
    from segweave.errors import UsageError

    if name is None:
        raise UsageError(
            "measuring costs", expected="the NAME of a network before --size", found="none"
        )


def _check_networks(names: list[str], *, asked: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from segweave.cli.show import as_json as print_json
    from segweave.cli.show import counter, remark, table
    from segweave.errors import UsageError
    from segweave.workflow.check_networks import check_networks, failed_networks

    if not asked:
        raise UsageError("listing networks", expected="--check beside --only", found="--only alone")
    with counter("trying networks", show=True) as progress:
        trials = list(check_networks(names, progress=progress))
    failed = failed_networks(trials)
    if as_json:
        print_json([asdict(trial) for trial in trials])
    else:
        rows = []
        for name in dict.fromkeys(trial.network for trial in trials):
            its = [trial for trial in trials if trial.network == name]
            size = next((trial.size for trial in its if trial.size), None)
            errors = [f"{trial.place}: {trial.error}" for trial in its if trial.error]
            rows.append(
                (
                    name,
                    f"{size[0]}×{size[1]}" if size else "-",
                    f"{len(its) - len(errors)} of {len(its)}",
                    f"{sum(trial.seconds for trial in its):.1f}",
                    "; ".join(errors),
                )
            )
        table(
            "Networks alone, with sa-lstm and with conv at every position",
            ("network", "size", "work", "seconds", "what failed"),
            rows,
            note="Reduced width; windows of three slices; one step of training, then a volume of "
            "four slices.",
        )
    if failed:
        remark("failed: " + ", ".join(failed))
        raise typer.Exit(1)


def _print_costs(
    name: str,
    size: tuple[int, int],
    woven_in: tuple[str | None, str, int],
    counts: tuple[int, int],
    form: str,
    *,
    run: bool,
    as_json: bool,
) -> None:
    import os
    from dataclasses import asdict

    # torch's profiler, which measures the memory, writes to stderr unless this is set before.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from segweave.cli.show import as_json as print_json
    from segweave.cli.show import table
    from segweave.networks import create_network
    from segweave.weaving import weave
    from segweave.weaving.costs import measure_costs

    context, at, slices = woven_in
    network = create_network(name, in_channels=counts[0], classes=counts[1], form=form)
    costs = measure_costs(
        weave(network, context or "identity", at=at, slices=slices), size, run=run
    )
    if as_json:
        print_json(asdict(costs))
        return
    rows = [
        (
            step.name,
            ", ".join("×".join(map(str, shape)) for shape in step.shapes),
            f"{step.parameters:,}",
            f"{step.multiply_accumulates / 1e9:.3f} G",
        )
        for step in costs.steps
    ]
    taken = ""
    if costs.seconds is not None and costs.peak_bytes is not None:
        taken = (
            f"One forward pass: {costs.seconds:.2f} s on this CPU, "
            f"{costs.peak_bytes / 1e6:.0f} MB beside weights and image. "
        )
    total = f"{costs.multiply_accumulates / 1e9:.3f} G"
    title = f"{name}, {size[0]}×{size[1]}" + (f", {context} at {at}" if context else "")
    table(
        title + (f", {slices} slices" if slices > 1 else ""),
        ("step", "returns (channels × height × width)", "parameters", "multiply-accumulates"),
        [*rows, ("all", "", f"{costs.parameters:,}", total)],
        note=taken + "Multiply-accumulates are half of what torch's FlopCounterMode counts: "
        "convolutions and matrix products.",
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
    if card.prompt:
        details["is shown"] = (
            f"a {card.prompt} around what to segment; in training and for scores it is taken from "
            "the reference"
        )
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
