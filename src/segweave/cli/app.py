"""The table of the commands; importing it imports no torch, so that help and lists answer at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from segweave.cli import (
    calibrate,
    check,
    compare,
    contexts,
    convert_weights,
    demo,
    denoise,
    evaluate,
    export_nnunet,
    grid,
    info,
    networks,
    plan,
    predict,
    prepare,
    rank,
    score,
    send,
    serve,
    summarise,
    train,
    try_images,
    watch,
)
from segweave.cli.helps import Examples, examples, paragraphs
from segweave.cli.run import Command, common, entry_point, guarded

ORDER = (
    "demo",
    "check",
    "prepare",
    "plan",
    "train",
    "grid",
    "calibrate",
    "predict",
    "denoise",
    "rank",
    "serve",
    "try",
    "watch",
    "send",
    "evaluate",
    "score",
    "summarise",
    "compare",
    "networks",
    "contexts",
    "convert-weights",
    "export-nnunet",
    "info",
)

_BEGIN = (
    ("segweave demo", "all of it on synthetic images, in minutes"),
    ("segweave prepare acdc RELEASE stores/acdc", "a public data set"),
    ("segweave prepare folder IMAGES MASKS stores/mine", "your own images"),
    ("segweave train RECIPE --store stores/acdc --out runs/a", "a network, with a recipe"),
    ("segweave predict runs/a scan.nii.gz --out labels", "label maps for new images"),
)


class _Commands(TyperGroup):
    """The commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(ORDER)


app = typer.Typer(
    name="segweave",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(help=paragraphs(common), epilog=examples(_BEGIN, "Where to begin"))(common)


def _add(name: str, function: Callable[..., None], shown: Examples) -> None:
    app.command(name, cls=Command, help=paragraphs(function), epilog=examples(shown))(
        guarded(function)
    )


_add("demo", demo.demo, demo.EXAMPLES)
_add("check", check.check, check.EXAMPLES)
_add("export-nnunet", export_nnunet.export_nnunet, export_nnunet.EXAMPLES)
_add("plan", plan.plan, plan.EXAMPLES)
_add("train", train.train, train.EXAMPLES)
_add("grid", grid.grid, grid.EXAMPLES)
_add("calibrate", calibrate.calibrate, calibrate.EXAMPLES)
_add("predict", predict.predict, predict.EXAMPLES)
_add("denoise", denoise.denoise, denoise.EXAMPLES)
_add("rank", rank.rank, rank.EXAMPLES)
_add("serve", serve.serve, serve.EXAMPLES)
_add("try", try_images.try_images, try_images.EXAMPLES)
_add("watch", watch.watch, watch.EXAMPLES)
_add("send", send.send, send.EXAMPLES)
_add("evaluate", evaluate.evaluate, evaluate.EXAMPLES)
_add("score", score.score, score.EXAMPLES)
_add("summarise", summarise.summarise, summarise.EXAMPLES)
_add("compare", compare.compare, compare.EXAMPLES)
_add("networks", networks.networks, networks.EXAMPLES)
_add("contexts", contexts.contexts, contexts.EXAMPLES)
_add("convert-weights", convert_weights.convert_weights, convert_weights.EXAMPLES)
_add("info", info.info, info.EXAMPLES)
app.add_typer(prepare.app, name="prepare")

main = entry_point(app)
