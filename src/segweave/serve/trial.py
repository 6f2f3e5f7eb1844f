"""A service for a look: on a free port of this machine, with images sent to it, in the browser."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from segweave.errors import InputError, SegweaveError
from segweave.formats import Geometry, find_images
from segweave.serve.limits import Limits
from segweave.serve.run import serve

if TYPE_CHECKING:
    from segweave.serve.service import Service

_DOING = "trying a model"
_MOST = 500  # jobs: their ids are in the address of the page


def try_images(
    images: Sequence[str | Path],
    runs: Sequence[str | Path],
    *,
    collect: str | Path | None = None,
    geometry: Geometry = "check",
    device: str = "auto",
    browser: bool = True,
    announce: Callable[[str], None],
    remark: Callable[[str], None],
) -> None:
    """Serve the runs at a free port, segment the images with each of them, and open the page on the
    results, until the process is interrupted. Images and results are deleted at the end.

    Args:
        images: image files, folders of them, folders of DICOM series.
        runs: run folders or model folders.
        collect: the folder to which the page adds images with corrected masks; None for no folder.
        geometry: what decides where a NIfTI header contradicts itself.
        device: see `segweave.load`.
        browser: whether to open the page in the browser.
        announce: called with the address of the page.
        remark: called with a line for each image that is refused.

    Raises InputError where there is no image that a model can segment, and what
    `segweave.serve.run.serve` raises.
    """
    files = [file for path in images for file in find_images(path)]
    count = len(files) * len(runs)
    if count > _MOST:
        raise InputError(
            _DOING,
            expected=f"at most {_MOST} images (times models)",
            found=str(count),
            remedy="segment many images with `segweave predict`",
        )

    def begin(address: str, service: Service) -> None:
        jobs = ",".join(_sent(files, service, geometry, remark))
        if not jobs:
            raise InputError(
                _DOING, expected="an image that a model can segment", found="none of those given"
            )
        page = f"{address}/#jobs={jobs}"
        announce(page)
        if browser:
            webbrowser.open(page)

    with tempfile.TemporaryDirectory(prefix="segweave-try-") as folder:
        limits = Limits(queue=max(count, 32))
        serve(
            runs,
            port=0,
            folder=folder,
            limits=limits,
            collect=collect,
            device=device,
            started=begin,
        )


def _sent(
    files: Sequence[Path], service: Service, geometry: Geometry, remark: Callable[[str], None]
) -> Iterator[str]:
    """Queue every image with every model; yields what the page reads of each job."""
    from segweave.serve.messages import public_message
    from segweave.serve.service import Options
    from segweave.serve.uploads import opened

    for file in files:
        first = ""
        for model in service.models:
            options = Options(model, geometry, uncertainty="entropy")
            try:
                id = service.accept(opened(file), options).id
            except SegweaveError as error:
                remark(f"{file}, {model}: {public_message(error, service.folder).text}")
                continue
            first = first or id
            yield f"{id}~{first}~{quote(file.name, safe='')}"
