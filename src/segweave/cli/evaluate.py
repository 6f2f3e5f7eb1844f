"""`segweave evaluate`: scores of a run or of any folder of predictions, under a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    ("segweave evaluate runs/a", "the test cases, protocol clean"),
    (
        "segweave evaluate runs/a --part validation --protocol published",
        "as the released evaluation counts, on the validation cases",
    ),
    (
        "segweave evaluate labels/ truth/ --out scores --cases patients.csv",
        "any files, whatever made them",
    ),
    (
        "segweave evaluate runs/0 --with runs/1 --with runs/2 --part validation",
        "the mean of three seeds, as an arm of its own",
    ),
)


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|PREDICTIONS",
            help="A run folder, or a folder of label maps.",
            show_default=False,
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Argument(
            metavar="[REFERENCES]",
            help="The folder of true label maps, where the first is not a run.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is counted, and how: clean, penalised, or published, that of a run's data "
            "set; for files, published-polyps, -isic, -glas, -synapse, or published (ACDC).",
        ),
    ] = "clean",
    part: Annotated[
        str,
        typer.Option(metavar="PART", help="Of a run: test, validation or training cases."),
    ] = "test",
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a run: last, best or best-on-test."),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="RUN",
            help="Of a run: average the probabilities with those of this run too (another seed). "
            "May be given several times.",
            show_default=False,
        ),
    ] = None,
    flips: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Of a run: average over mirror images too: none, rows (left-right), columns "
            "(up-down) or both.",
        ),
    ] = "none",
    tiles: Annotated[
        bool,
        typer.Option(
            "--tiles",
            help="Of a run: read images in tiles of the network's size, at their own resolution.",
        ),
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE",
            help="Of a run: the store, where it is no longer where the run found it.",
            show_default=False,
        ),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Of files: a table with case and any of group, part, stack, arm, seed, fold, id, "
            "slice. Parts without a file are passed over. Without groups each file is its own.",
            show_default=False,
        ),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="Of files: what their slices are, where the table does not say: space (a volume, "
            "scored in 3D), time (frames of a video, scored one by one) or single.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of files: names of the classes from id 1 on, joined with commas.",
            show_default=False,
        ),
    ] = None,
    geometry: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Of files: where a NIfTI header contradicts itself, check (refuse), pixdim or "
            "affine.",
        ),
    ] = "check",
    mask_threshold: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of files: in grey or JPEG masks, what is above this is foreground (127).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The evaluation folder; of a run: RUN/evaluation/PROTOCOL.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Score again what was scored already.")
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:1.")
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score a run's model on its store's cases, or any label maps against true ones.

    Under "clean" every slice counts at the case's own size, distances are in millimetres and
    a class counts where the reference has it; "published" repeats the released evaluation,
    quirks included. Test cases are scored once: a second time needs --force, because choosing
    between models by their test scores makes the scores worthless.
    """
    from segweave.cli.show import counter, one_of, results, score_tables
    from segweave.evaluation import summary_table
    from segweave.prediction import Tiles
    from segweave.workflow import api

    one_of("--geometry", geometry, ("check", "pixdim", "affine"))
    if stack is not None:
        one_of("--stack", stack, ("space", "time", "single"))
    one_of("--flips", flips, ("none", "rows", "columns", "both"))
    with counter("scoring", show=not quiet) as progress:
        done = api.evaluate(
            source,
            references,
            part=part,
            protocol=protocol,
            checkpoint=checkpoint,
            members=also or (),
            flips=flips,  # type: ignore[arg-type]  # one_of has checked it
            tiles=Tiles() if tiles else None,
            store=store,
            cases=cases,
            classes=[name.strip() for name in classes.split(",")] if classes else None,
            stack=stack,  # type: ignore[arg-type]  # one_of has checked it
            geometry=geometry,  # type: ignore[arg-type]  # one_of has checked it
            mask_threshold=mask_threshold,
            out=out,
            force=force,
            device=device,
            progress=progress,
        )
    score_tables(summary_table([done]))
    results(scores=done.folder / "cases.csv", summary=done.folder / "summary.json")
