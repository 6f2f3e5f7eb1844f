"""`segweave try`: the page of the service, opened on the results of some images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segweave.cli.options import Device, Geometry

EXAMPLES = (
    ("segweave try scan.nii.gz --run runs/a", "look at one volume, in the browser"),
    ("segweave try photos/ --run runs/a --run runs/b", "two models side by side"),
    ("segweave try scan.nii.gz --run runs/a --no-browser", "print the address alone"),
    ("segweave try scans/ --run runs/a --collect corrected", "correct masks, and keep them"),
)


def try_images(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, folders of them, folders of DICOM series.",
            show_default=False,
        ),
    ],
    run: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN",
            help="A run folder or a model folder. May be given several times.",
            show_default=False,
        ),
    ],
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the page adds images with corrected masks, for `segweave prepare`.",
            show_default=False,
        ),
    ] = None,
    geometry: Geometry = "check",
    device: Device = "auto",
) -> None:
    """Segment images and look at the results in the browser.

    Starts a service for this machine alone at a free port, sends it the images, and opens its page:
    slices, measurements, two models side by side, corrections. Ctrl-C ends it and deletes what it
    holds; download what you want to keep. Research software, not a medical device.
    """
    import sys

    from segweave.cli.show import remark, results
    from segweave.serve.trial import try_images as start

    def announce(page: str) -> None:
        results(page=page, end="Ctrl-C")
        sys.stdout.flush()

    start(
        images,
        run,
        collect=collect,
        geometry=geometry,
        device=device,
        browser=browser,
        announce=announce,
        remark=remark,
    )
