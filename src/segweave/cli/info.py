"""`segweave info`: what is installed, and the contents of a store, run, recipe or image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from segweave.cli.options import Geometry

EXAMPLES = (
    ("segweave info", "versions, devices, extras"),
    ("segweave info stores/acdc", "cases, sizes, classes, splits"),
    ("segweave info runs/a", "settings, progress and scores"),
)


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="A store, run, model, evaluation, recipe or image.",
            show_default=False,
        ),
    ] = None,
    geometry: Geometry = "check",
    json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Describe this installation, or the store, run or file at PATH.

    Without PATH: versions, devices and threads, and for each optional extra whether it is
    installed or which command installs it. With PATH: the contents of a store, run, model,
    evaluation, recipe or image file.
    """
    from segweave.cli.show import as_json, facts

    if path is None:
        title, values = "This installation", installation()
    else:
        from segweave.cli.describe import describe

        title, values = describe(path, geometry)
    if json:
        as_json({"what": title, **values})
    else:
        facts(title, values)


EXTRAS = {
    "train": ("lightning", "tensorboard"),
    "zoo": ("timm", "torchvision"),
    "report": ("matplotlib", "jinja2"),
    "fast": ("numba",),
    "dicom": ("pydicom",),
    "formats": ("SimpleITK",),
    "serve": ("fastapi", "uvicorn", "python_multipart"),
}


def installation() -> dict[str, Any]:
    """Versions, devices, threads and extras of this Python."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from segweave import __version__

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    devices = [f"cpu ({platform.machine()})"]
    devices += [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    values: dict[str, Any] = {
        "segweave": __version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "torch": torch.__version__,
        "numpy": installed("numpy"),
        "devices": ", ".join(devices),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }
    for extra, libraries in EXTRAS.items():
        versions = {name: installed(name) for name in libraries}
        missing = [name for name, value in versions.items() if value is None]
        if missing:
            values[f"extra {extra}"] = (
                f'missing {", ".join(missing)}: pip install "segweave[{extra}]"'
            )
        else:
            values[f"extra {extra}"] = ", ".join(f"{n} {v}" for n, v in versions.items())
    return values
