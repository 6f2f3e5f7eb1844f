"""`segweave predict`: images in, label maps in the images' own geometry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    ("segweave predict runs/a scan.nii.gz --out labels", "one volume"),
    ("segweave predict runs/a photos/ more/a.png --out labels --no-overlays", "folders and files"),
    (
        "segweave predict models/heart scans/ --out labels --probabilities --device cuda",
        "a model folder, with probabilities",
    ),
    (
        "segweave predict runs/0 scans/ --out labels --with runs/1 --with runs/2 --flips rows",
        "three runs averaged, mirror images too",
    ),
)


def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A run folder or a model folder.", show_default=False),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Image files or folders of them.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the label maps go.", show_default=False)
    ],
    overlays: Annotated[
        bool, typer.Option("--overlays/--no-overlays", help="PNGs of the image under its labels.")
    ] = True,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probabilities of each class.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace label maps that are already there.")
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a run: last, best or best-on-test."),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="MODEL",
            help="Average the probabilities with those of this model too. May be given several "
            "times.",
            show_default=False,
        ),
    ] = None,
    flips: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Average over mirror images too: none, rows (left-right), columns (up-down) or "
            "both. Sensible where the training mirrored images so.",
        ),
    ] = "none",
    tiles: Annotated[
        bool,
        typer.Option(
            "--tiles",
            help="Read images in overlapping tiles of the network's size, at their own "
            "resolution. Sensible where the training saw that resolution.",
        ),
    ] = False,
    geometry: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Where a NIfTI header contradicts itself: check (refuse), pixdim or affine.",
        ),
    ] = "check",
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:1.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="32, or bf16: faster where the device multiplies in bfloat16; may change a few "
            "labels at edges.",
        ),
    ] = "32",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Segment images and volumes with a trained model.

    Takes NIfTI, HDF5, NumPy and common picture formats. A label map has the size, orientation,
    affine and units of its image, so that a viewer lays one over the other. A volume is read
    slice by slice in bounded memory, each slice going through the network once. A file that
    fails is told at the end, and the others go on.
    """
    from segweave.cli.show import counter, one_of, results
    from segweave.errors import InputError
    from segweave.prediction import Tiles, load_ensemble, predict_files

    one_of("--geometry", geometry, ("check", "pixdim", "affine"))
    one_of("--precision", precision, ("32", "bf16"))
    one_of("--flips", flips, ("none", "rows", "columns", "both"))
    predictor = load_ensemble(
        [model, *(also or ())],
        flips=flips,  # type: ignore[arg-type]  # one_of has checked it
        tiles=Tiles() if tiles else None,
        checkpoint=checkpoint,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # one_of has checked it
    )
    with counter("predicting", show=not quiet) as count:
        report = predict_files(
            predictor,
            inputs,
            out,
            overlays=overlays,
            probabilities=probabilities,
            force=force,
            geometry=geometry,  # type: ignore[arg-type]  # one_of has checked it
            progress=None if count is None else lambda d, n, f: count(d, n, f.name if f else ""),
        )
    if report.files:
        results(label_maps=f"{len(report.files)} in {report.folder}", summary=report.summary)
    if report.failures:
        raise InputError(
            f"predicting {len(report.failures)} of {len(report.failures) + len(report.files)} "
            "files failed",
            found="".join(f"\n    {_indented(failure.error)}" for failure in report.failures),
        )


def _indented(error: Exception) -> str:
    return str(error).replace("\n", "\n    ")
