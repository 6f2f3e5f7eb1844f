"""`segweave serve`: prediction as a service over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segweave.cli.options import Device, Precision

EXAMPLES = (
    ("segweave serve runs/a", "a run at http://127.0.0.1:8000, for this machine alone"),
    ("segweave predict --server http://127.0.0.1:8000 a scan.nii.gz --out labels", "use it"),
    ("curl -F files=@scan.nii.gz http://127.0.0.1:8000/jobs", "use it from another program"),
    (
        "segweave serve runs/a models/heart --host 0.0.0.0 --port 9000 --token-file token",
        "two models for other machines, which have to send the token",
    ),
    ("segweave serve runs/a runs/b --collect corrected", "keep corrected masks for a training"),
    ("segweave serve runs/a --keep 1 --limit-queue 8", "results for an hour, a short queue"),
)


def serve(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders or model folders. The folder's name is the model's.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The address to listen at. Any but a loopback address needs --token-file.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one and prints it.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with a secret of at least 16 characters, which clients have to send as "
            "Authorization: Bearer TOKEN.",
            show_default=False,
        ),
    ] = None,
    jobs_folder: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="The folder of jobs. It holds patients' images and results."
        ),
    ] = Path("segweave-jobs"),
    keep: Annotated[
        float,
        typer.Option(metavar="HOURS", min=0, help="Delete a job so many hours after its end."),
    ] = 24.0,
    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the page adds images with corrected masks, for `segweave prepare`. It "
            "holds patients' images.",
            show_default=False,
        ),
    ] = None,
    limit_mib: Annotated[
        float,
        typer.Option(
            metavar="MIB", min=0.001, help="The most MiB of an upload, packed and unpacked."
        ),
    ] = 1024.0,
    limit_files: Annotated[
        int, typer.Option(metavar="N", min=1, help="The most files of an upload, also in a zip.")
    ] = 4000,
    limit_ratio: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="How many times its size compressed data may unfold to; up to 64 MiB any.",
        ),
    ] = 200,
    limit_voxels: Annotated[
        int, typer.Option(metavar="N", min=1, help="The most voxels of an image.")
    ] = 300_000_000,
    limit_seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="The longest that a prediction may run.")
    ] = 600.0,
    limit_upload_seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="The longest that an upload may take.")
    ] = 600.0,
    limit_queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="The most jobs that wait.")
    ] = 32,
    limit_connections: Annotated[
        int, typer.Option(metavar="N", min=4, help="The most connections at a time.")
    ] = 200,
    limit_restarts: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="How often a job that the server did not survive runs again."
        ),
    ] = 20,
    device: Device = "auto",
    precision: Precision = "32",
) -> None:
    """Segment images over HTTP: a page for people, a queue of jobs for programs and for `segweave
    predict --server`.

    Research software, not a medical device. The page is at the address itself: send images, look at
    results slice by slice, compare models, correct masks. Models are loaded once, one job runs at a
    time. An
    image is sent with POST /jobs: NIfTI, a DICOM series (a zip, or several files), a picture, h5 or
    npz. GET /jobs/ID shows how far it is, and where its results are: label map, overlay,
    measurements. The address /docs describes it, /openapi.json for programs.

    Jobs are in SQLite and a folder. They survive a crash: what was interrupted runs again. What is
    over a limit is refused with a message. No name that a client sends becomes a path or is logged,
    but the folder of jobs holds the images themselves: protect it.

    Without a token only this machine is answered. For other machines give a token, and put a proxy
    with TLS before the service: the service itself speaks plain HTTP. Ctrl-C ends it; jobs that
    wait are done after the next start.
    """
    from segweave.cli.show import results
    from segweave.serve.limits import Limits
    from segweave.serve.run import serve as run

    limits = Limits(
        bytes=int(limit_mib * 2**20),
        files=limit_files,
        ratio=limit_ratio,
        voxels=limit_voxels,
        seconds=limit_seconds,
        upload_seconds=limit_upload_seconds,
        queue=limit_queue,
        connections=limit_connections,
        restarts=limit_restarts,
        keep_hours=keep,
    )

    def announce(address: str) -> None:
        results(address=address, jobs=jobs_folder.absolute(), docs=f"{address}/docs")
        # Programs that start the service wait for these lines.
        import sys

        sys.stdout.flush()

    run(
        models,
        host=host,
        port=port,
        token_file=token_file,
        folder=jobs_folder,
        limits=limits,
        collect=collect,
        device=device,
        precision=precision,
        announce=announce,
    )
