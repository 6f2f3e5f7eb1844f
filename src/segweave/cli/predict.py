"""`segweave predict`: images in, label maps in the images' own geometry out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segweave.cli.options import (
    Checkpoint,
    Device,
    Flips,
    Force,
    Geometry,
    Precision,
    Quiet,
    UseTiles,
)

if TYPE_CHECKING:
    from segweave.prediction.files import PredictionReport

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
    (
        "segweave predict runs/0 scans/ --out labels --with runs/1 --uncertainty entropy",
        "with a map of how uncertain each pixel is",
    ),
    (
        "segweave predict models/medsam photo.png --out labels --box 120 80 310 260",
        "what is in a box, for a network that is shown what to segment",
    ),
    (
        "segweave predict runs/a ct-series/ --out labels --format dicom-seg",
        "a DICOM series, as a DICOM segmentation for an archive",
    ),
    (
        "segweave predict runs/a scans/ --out labels --denoise runs/red-cnn",
        "low-dose CT: the noise is removed first",
    ),
    (
        "segweave predict heart scans/ --out labels --server http://127.0.0.1:8000",
        "with the model heart of a service (segweave serve)",
    ),
)


def check_format(value: str | None) -> str | None:
    """Raise UsageError for a format that is not there, before anything slow happens."""
    # Imports the table of formats, not torch.
    if value is not None:
        from segweave.formats import label_format

        label_format(value)
    return value


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A run folder or a model folder; with --server the name of a model there.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Image files or folders of them.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="The folder for the label maps.", show_default=False),
    ],
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="X0 Y0 X1 Y1",
            help="For a network that segments what is in a box: left, upper, right and lower pixel "
            "of the box, counted from 0, for all images and slices.",
            show_default=False,
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="In place of --box: a box for each image or slice, in the columns case, x0, y0, "
            "x1, y1 and, for volumes, slice. A slice without a box becomes background.",
            show_default=False,
        ),
    ] = None,
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlays/--no-overlays", help="Also write pictures of the images with their labels."
        ),
    ] = True,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write the probabilities of each class: .nii.gz of a NIfTI image, else .npz.",
        ),
    ] = False,
    uncertainty: Annotated[
        Literal["entropy", "mutual-information"] | None,
        typer.Option(
            help="Also write a map from 0 to 1 of how uncertain each pixel is: the entropy of the "
            "probabilities, or how far models and flips disagree.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature/--no-temperature",
            help="Use the temperature that segweave calibrate wrote into the model card. It "
            "changes probabilities and entropy, no label.",
        ),
    ] = True,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The format of the label maps: nifti, mha, nrrd, npz, h5 or png, and of DICOM "
            "images dicom-seg or rtstruct. Default: what suits each image.",
            callback=check_format,
            show_default=False,
        ),
    ] = None,
    seg_type: Annotated[
        Literal["binary", "labelmap"],
        typer.Option(
            help="How a DICOM-SEG object holds the classes: each as a bit map, which every viewer "
            "reads, or all in one map of ids.",
        ),
    ] = "binary",
    report_dicom: Annotated[
        bool,
        typer.Option(
            "--report-dicom",
            help="With --format dicom-seg: also write volumes and diameters as a DICOM structured "
            "report.",
        ),
    ] = False,
    force: Force = False,
    checkpoint: Checkpoint = None,
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
    denoise: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Remove the noise of the images first, with this model (see segweave denoise).",
            show_default=False,
        ),
    ] = None,
    flips: Flips = "none",
    tiles: UseTiles = False,
    geometry: Geometry = "check",
    device: Device = "auto",
    precision: Precision = "32",
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Predict on the service at this address (segweave serve) instead of here.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file with the token of the service.", show_default=False
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Segment images and volumes with a trained model.

    Takes NIfTI, DICOM series, HDF5, NumPy and common picture formats. A label map has the size,
    orientation, affine and units of its image, so that a viewer shows one over the other. A volume
    is read slice by slice in bounded memory, and each slice goes through the network once. A file
    that fails is reported at the end, and the others continue. After an interruption the same
    command goes on where it was.

    With `--server` the network runs on a service, and the same files are written here. Only pixels
    and spacing are sent, no header and no name.
    """
    from segweave.cli.show import counter, remark
    from segweave.errors import UsageError
    from segweave.prediction.box_file import read_boxes
    from segweave.prediction.planning import PROBABILITIES, UNCERTAINTY, check_prediction

    if box is not None and boxes is not None:
        raise UsageError("choosing boxes", expected="either --box or --boxes", found="both of them")
    given = box if boxes is None else read_boxes(boxes)
    models = [model, *(also or ())]
    options = {"--with": bool(also), "--flips": flips != "none", "--tiles": tiles}
    options |= {"--denoise": denoise is not None}
    options |= {"--checkpoint": checkpoint is not None, "--device": device != "auto"}
    options |= {"--no-temperature": not temperature}
    options |= {"--precision": precision != "32", "--box or --boxes": given is not None}
    _check_options(server is not None, options, token_file is not None)
    if seg_type != "binary" and format != "dicom-seg":
        raise UsageError(
            "predicting", expected="--format dicom-seg with --seg-type", found=f"--format {format}"
        )
    if report_dicom:
        from segweave.prediction.dicom_report import check_report

        check_report(format)
    if server is None:
        # Before torch is imported, which takes seconds.
        check_prediction(
            models,
            inputs,
            out,
            checkpoint=checkpoint,
            overlays=overlays,
            probabilities=probabilities,
            uncertainty=uncertainty is not None,
            format=format,
            report=report_dicom,
            force=force,
            denoise=denoise,
        )
        if uncertainty is not None:
            from segweave.prediction.flips import views_of
            from segweave.prediction.uncertainty import check_uncertainty

            check_uncertainty(uncertainty, len(models) * views_of(flips))
    from segweave.prediction.files import Predicts, predict_files
    from segweave.prediction.predictor import Ensemble, Predictor, load_ensemble
    from segweave.prediction.tiles import Tiles

    predictor: Predictor | Ensemble | Predicts
    if server is None:
        predictor = load_ensemble(
            models,
            flips=flips,
            tiles=Tiles() if tiles else None,
            checkpoint=checkpoint,
            device=device,
            precision=precision,
            denoise=denoise,
            calibrated=temperature,
        )
        if probabilities or uncertainty == "entropy":
            used = predictor.temperature
            remark(
                f"probabilities at the temperature {used:g} of the model card"
                if used
                else "probabilities without a temperature (segweave calibrate fits one)"
            )
    else:
        from segweave.serve.client import RemoteSession
        from segweave.serve.token import read_token

        token = None if token_file is None else read_token(token_file)
        predictor = RemoteSession(server, str(model), token=token)
    with counter("predicting", show=not quiet) as progress:
        report = predict_files(
            predictor,
            inputs,
            out,
            boxes=given,
            overlays=overlays,
            probabilities=probabilities,
            uncertainty=uncertainty,
            format=format,
            segments=seg_type,
            report_dicom=report_dicom,
            force=force,
            geometry=geometry,
            progress=progress,
        )
    further = {PROBABILITIES: probabilities, UNCERTAINTY: uncertainty is not None}
    show_report(report, "label_maps", [name for name, asked in further.items() if asked])


def show_report(report: PredictionReport, what: str, further: Sequence[str] = ()) -> None:
    """Print what was written: `what`, of label maps or images, and `further` folders. Raises
    InputError where files failed.
    """
    from segweave.cli.show import remark, results
    from segweave.errors import InputError
    from segweave.prediction.planning import OVERLAYS

    if report.resumed:
        remark(f"{report.resumed} of {len(report.files)} files were done before an interruption")
    for file in report.files:
        if file.note:
            remark(f"{file.file}: {file.note}")
    if report.files:
        drawn = any(file.overlay is not None for file in report.files)
        results(
            **{what: f"{len(report.files)} in {report.folder}"},
            overlays=report.folder / OVERLAYS if drawn else None,
            **{name: report.folder / name for name in further},
            summary=report.summary,
        )
    if report.failures:
        raise InputError(
            f"predicting {len(report.failures)} of {len(report.failures) + len(report.files)} "
            "files failed",
            found="".join(f"\n    {_indented(failure.error)}" for failure in report.failures),
        )


def _check_options(server: bool, options: Mapping[str, bool], token: bool) -> None:
    """Raise UsageError for options that have no meaning with, or without, --server."""
    from segweave.errors import UsageError

    wrong = [name for name, is_given in options.items() if is_given and server]
    if wrong:
        raise UsageError(
            "predicting on a server",
            expected="no options of the network: it is the server's",
            found=", ".join(wrong),
        )
    if token and not server:
        raise UsageError("predicting", expected="--server URL", found="--token-file alone")


def _indented(error: Exception) -> str:
    return str(error).replace("\n", "\n    ")
