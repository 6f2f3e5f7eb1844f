"""`segweave denoise`: noisy images in, images without the noise out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segweave.cli.options import Checkpoint, Device, Flips, Force, Geometry, Quiet
from segweave.cli.predict import check_format, show_report

EXAMPLES = (
    ("segweave denoise scan.nii.gz --run runs/red-cnn --out quiet", "one volume"),
    (
        "segweave denoise scans/ --run runs/red-cnn --out quiet --overlays",
        "every volume of a folder, with pictures",
    ),
)


def denoise(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="Image files or folders of them.", show_default=False
        ),
    ],
    run: Annotated[
        Path,
        typer.Option(
            metavar="RUN",
            help="A run or model folder of a network that predicts an image.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="The folder for the images.", show_default=False),
    ],
    overlays: Annotated[
        bool, typer.Option("--overlays/--no-overlays", help="Also write pictures.")
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The format of the images: nifti, mha, nrrd, npz or h5. Default: what suits each "
            "image; of DICOM, nifti.",
            callback=check_format,
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    checkpoint: Checkpoint = None,
    flips: Flips = "none",
    geometry: Geometry = "check",
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Remove the noise of images with a trained model, such as `red-cnn` on low-dose CT.

    An image without noise has the name, the size, the geometry and the unit of the given one: CT
    stays in Hounsfield units. It holds whole numbers (int16) where the given one does, else
    float32. A file that fails is reported at the end, and the others continue; after an
    interruption the same command goes on where it was. Research software: a network can remove
    structures with the noise, and add others.
    """
    from segweave.cli.show import counter
    from segweave.prediction.planning import check_denoiser, check_prediction

    # Before torch is imported, which takes seconds.
    check_denoiser(run, checkpoint)
    check_prediction(
        [run], inputs, out, checkpoint=checkpoint, overlays=overlays, format=format, force=force
    )
    from segweave.prediction.files import predict_files
    from segweave.prediction.predictor import load_ensemble

    predictor = load_ensemble([run], flips=flips, checkpoint=checkpoint, device=device)
    with counter("denoising", show=not quiet) as progress:
        report = predict_files(
            predictor,
            inputs,
            out,
            overlays=overlays,
            format=format,
            force=force,
            geometry=geometry,
            progress=progress,
        )
    show_report(report, "images")
