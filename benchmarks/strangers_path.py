"""What a stranger does after `make demo`: `python benchmarks/strangers_path.py demo`.

Serves the demo's UNet by the command, opens its page in Chromium, sends a synthetic heart as NIfTI
file and as DICOM series, downloads the results, sends the DICOM segmentation object into an empty
Orthanc, and has it read by highdicom and by dcmqi. Needs chromium, Orthanc, dcmqi and the extra
`test`. Prints Markdown; ends with 1 where the objects do not say the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.archive.conftest import Orthanc, free_port, running_orthanc
from tests.programs import program
from tests.serve.page import chromium

from segweave.formats import read_case

PROGRAM = Path(sys.executable).with_name("segweave")


class Steps:
    """The rows of the table."""

    def __init__(self) -> None:
        print("| step | seconds | seen |\n| --- | ---: | --- |")
        self._before = time.monotonic()

    def done(self, what: str, seen: str) -> None:
        """A step is over."""
        now = time.monotonic()
        print(f"| {what} | {now - self._before:.1f} | {seen} |", flush=True)
        self._before = now


@contextmanager
def served(model: Path, folder: Path) -> Iterator[str]:
    """The address of `segweave serve MODEL`."""
    port = free_port()
    command = [PROGRAM, "serve", model, "--port", str(port), "--jobs-folder", folder / "jobs"]
    address, said = f"http://127.0.0.1:{port}", folder / "serve.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while address not in said.read_text():
            if process.poll() is not None:
                raise SystemExit(said.read_text())
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def send(page: Any, control: str, what: Path) -> None:
    """Send a file or a folder through the page, and wait for its picture."""
    page.set_input_files(control, what)
    page.wait_for_selector("#stages[data-slice]", timeout=120_000)


def download(page: Any, name: str, folder: Path) -> Path:
    """Click the link of a result."""
    with page.expect_download() as found:
        page.get_by_role("link", name=name, exact=True).click()
    path = folder / found.value.suggested_filename
    found.value.save_as(path)
    return path


def voxels_of_dcmqi(path: Path, folder: Path) -> dict[int, int]:
    """Segment number → voxels, as dcmqi writes them."""
    import SimpleITK

    folder.mkdir()
    command = [program("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder]
    subprocess.run([*command, "-t", "nrrd"], check=True, capture_output=True)
    counts: dict[int, int] = {}
    for file in sorted(folder.glob("*.nrrd")):
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
        for value in np.unique(values[values > 0]):
            counts[len(counts) + 1] = int((values == value).sum())
    return counts


def voxels_of_highdicom(path: Path) -> dict[int, int]:
    """Segment number → voxels, as highdicom reads them."""
    import highdicom

    found = highdicom.seg.segread(str(path))
    series = found.get_source_image_uids()
    frames = found.get_pixels_by_source_instance([uid for *_, uid in series])
    return {
        number: int((frames[..., k] > 0).sum()) for k, number in enumerate(found.segment_numbers)
    }


def voxels_of(path: Path) -> dict[int, int]:
    """Class → voxels of a label map."""
    labels = read_case(path).image
    return {int(value): int((labels == value).sum()) for value in np.unique(labels[labels > 0])}


def walk(demo: Path, folder: Path, archive: Orthanc) -> bool:
    """The path; returns whether all say the same."""
    steps = Steps()
    with served(demo / "runs" / "unet", folder) as address, chromium() as browser:
        steps.done("`segweave serve`", "prints its address")
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#card > *")
        steps.done("the page", "opens, and shows the card of the model")
        send(page, "#files", demo / "new" / "heart.nii.gz")
        nifti = download(page, "labels", folder)
        steps.done("a NIfTI file", f"its label map: {nifti.name}")
        page.reload()
        send(page, "#folder", demo / "new" / "heart-dicom")
        steps.done("a DICOM series", "its result is displayed")
        segmentation = download(page, "dicom-seg", folder)
        series = download(page, "labels", folder)
        steps.done("downloads", f"{segmentation.name}, {series.name}")
    command = [
        PROGRAM,
        "send",
        segmentation,
        "--to",
        archive.node,
        "--called",
        "ARCHIVE",
        "--quiet",
    ]
    subprocess.run(command, check=True, capture_output=True)
    stored = archive.find("Series", Modality="SEG")
    steps.done("`segweave send`", f"Orthanc holds {len(stored)} series of kind SEG")
    (kept,) = stored
    again = folder / "from-orthanc.dcm"
    again.write_bytes(archive.ask(f"/instances/{kept['Instances'][0]}/file"))
    labels = voxels_of(series)
    one, other = voxels_of_highdicom(again), voxels_of_dcmqi(again, folder / "dcmqi")
    steps.done("Orthanc's copy, read", f"highdicom: {one} voxels; dcmqi: {other}")
    print(
        f"\nVoxels of the label map of the series: {labels}; of the NIfTI file: {voxels_of(nifti)}."
    )
    return labels == one == other == voxels_of(nifti) and len(labels) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="the folder of `segweave demo`")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "orthanc").mkdir()
        with running_orthanc(folder / "orthanc") as archive:
            same = walk(given.demo, folder, archive)
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
