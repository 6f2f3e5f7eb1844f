"""Finds the images in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segweave.errors import InputError
from segweave.formats.dicom import images_in, series_files
from segweave.formats.dicom_file import is_dicom
from segweave.formats.table import DICOM, SUFFIXES, case_name, suffix_of
from segweave.storage import read_json

LABEL_ENDINGS = (
    "_gt",
    "_groundtruth",
    "_label",
    "_labels",
    "_mask",
    "_manual",
    "_anno",
    "_seg",
    ".seg",
    "_segmentation",
    "_pred",
    "_prediction",
)
"""What marks the name of a label file, beside the name of its image; case does not matter."""

PREDICTIONS = "predictions.json"
"""The file by which a folder of predictions is known."""

_ONE_FILE = "save header and pixels as one .mha or .nii.gz file, for instance with SimpleITK: "
_ONE_FILE += "WriteImage(ReadImage('a{}'), 'a.mha')"
_CONVERT = {
    **{end: _ONE_FILE.format(end) for end in (".mhd", ".hdr", ".nhdr")},
    ".raw": "give the header beside it (.mhd, .nhdr), converted to one .mha or .nii.gz file",
    ".img": "if a .hdr is beside it, convert both to one .nii.gz file",
    **dict.fromkeys((".gif", ".webp", ".heic", ".jp2"), "convert it to .png"),
    **dict.fromkeys((".mp4", ".avi", ".mov"), "save its frames as .png files"),
    ".mat": "save its array as .npy",
    ".zip": "unpack it",
}
"""What to do with files of kinds that are not read."""


def label_ending(name: str) -> str:
    """The ending of `LABEL_ENDINGS` that a case name carries, as it is written there, or ""."""
    ending = next((e for e in LABEL_ENDINGS if name.lower().endswith(e) and len(name) > len(e)), "")
    return name[len(name) - len(ending) :] if ending else ""


def find_images(path: str | Path) -> list[Path]:
    """The file itself, or every image file in a folder and the folders below, sorted. A folder that
    holds the slices of a DICOM series is one image, whatever the endings of its files.

    Links to folders are followed. Hidden files, stores and folders of predictions are passed over,
    and so are label files beside their image (`NAME_gt.nii.gz` beside `NAME.nii.gz`;
    `LABEL_ENDINGS`) and what `predict` wrote beside the images. Raises InputError where nothing is
    there to read, and for a folder that may not be read.
    """
    doing = "looking for images"
    folder = Path(path)
    if folder.is_file():
        if not suffix_of(folder) and not is_dicom(folder):
            raise unknown_ending(folder, doing)
        return [folder]
    if not folder.is_dir():
        raise InputError(
            doing,
            file=folder,
            expected="a file or a folder",
            found="a pipe, socket or device" if folder.exists() else "nothing there",
            kind="missing",
        )
    homes = folders_below(folder, doing, predictions=False)
    below = [path for inside in homes.values() for path in inside]
    named = {path for path in below if suffix_of(path) and path.is_file()}
    series = {image for home in homes for image in images_in(home)}
    written = _written_beside(folder)
    found = sorted(
        path
        for path in series | {path for path in named if suffix_of(path) not in DICOM}
        if path not in written and not any(home in path.parents for home in written)
    )
    names = {(file.parent, case_name(file)) for file in found}
    images = [file for file in found if not _is_label_of(file, names)]
    if not images:
        raise nothing_to_read(folder, below, doing)
    return images


def _written_beside(folder: Path) -> set[Path]:
    """What `predict` wrote into the folder of its images: label maps, and folders of pictures."""
    try:
        cases = read_json(folder / PREDICTIONS, "looking for images").get("cases", [])
        pairs = [(Path(case["file"]), folder / case["labels"]) for case in cases]
    except (InputError, KeyError, TypeError, ValueError):
        return set()
    home = folder.resolve()
    written = {
        labels
        for file, labels in pairs
        # Paths are noted as they were given, perhaps from another folder; names stay.
        if labels.with_name(file.name).exists() or home in file.resolve().parents
    }
    if not written:
        return written
    return written | {folder / name for name in ("overlays", "probabilities", "uncertainty")}


def nothing_to_read(folder: Path, below: Sequence[Path], doing: str) -> InputError:
    """The error for a folder without images; it names what is there instead."""
    others = Counter(path.suffix.lower() or "no ending" for path in below if path.is_file())
    shown = ", ".join(f"{count} of {suffix}" for suffix, count in others.most_common(4))
    known = next((suffix for suffix, _ in others.most_common() if suffix in _CONVERT), "")
    return InputError(
        doing,
        file=folder,
        expected="at least one image (" + " ".join(SUFFIXES) + ", or DICOM by its content)",
        found=f"none; files: {shown}" if shown else "none",
        remedy=_CONVERT.get(known),
        kind="missing",
    )


def is_store(folder: Path) -> bool:
    """Whether it is what `prepare` wrote, whose arrays must not be read as images."""
    return (folder / "manifest.json").is_file() and (folder / "records").is_dir()


def folders_below(folder: Path, doing: str, *, predictions: bool = True) -> dict[Path, list[Path]]:
    """A folder and those below → what is in each, sorted, but what is hidden or in a store, and
    unless `predictions` what `predict` wrote into a folder below.

    Links to folders are followed, every folder once. Raises InputError for a folder that may not be
    read.
    """
    found: dict[Path, list[Path]] = {}
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        home = waiting.pop()
        try:
            about = home.stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            found[home] = sorted(path for path in home.iterdir() if not path.name.startswith("."))
            folders = [path for path in found[home] if path.is_dir() and not is_store(path)]
            if not predictions:
                folders = [path for path in folders if not (path / PREDICTIONS).is_file()]
        except OSError as error:
            raise InputError(
                doing,
                file=home,
                expected="a folder that may be read",
                found=str(error.strerror),
                remedy="check its permissions, or take it out of the folder",
                kind="damaged",
            ) from error
        waiting += reversed(folders)
    return found


def visible(folder: Path, doing: str = "looking for images") -> list[Path]:
    """All that is in a folder and those below, as `folders_below` finds it, sorted."""
    return sorted(path for inside in folders_below(folder, doing).values() for path in inside)


def files_of(image: Path) -> list[Path]:
    """The files of an image: itself, or those of a DICOM series in a folder."""
    return series_files(image) if image.is_dir() else [image]


def _is_label_of(file: Path, names: set[tuple[Path, str]]) -> bool:
    name = case_name(file)
    ending = label_ending(name)
    return bool(ending) and (file.parent, name.removesuffix(ending)) in names


def unknown_ending(file: Path, doing: str) -> InputError:
    """The error for a file whose kind isn't known."""
    return InputError(
        doing,
        file=file,
        expected="a file that ends in " + " ".join(SUFFIXES) + ", or is DICOM by its content",
        found=f"a file that ends in {file.suffix or 'nothing'}",
        remedy=_CONVERT.get(file.suffix.lower()),
        kind="unsupported",
    )
