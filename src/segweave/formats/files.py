"""Finds the images in a folder."""

from __future__ import annotations

from pathlib import Path

from segweave.errors import InputError
from segweave.formats.dicom import series_files
from segweave.formats.table import DICOM, SUFFIXES, case_name, suffix_of

LABEL_ENDINGS = (
    "_gt",
    "_groundtruth",
    "_label",
    "_labels",
    "_mask",
    "_manual",
    "_anno",
    "_seg",
    "_segmentation",
    "_pred",
    "_prediction",
)
"""What marks the name of a label file, beside the name of its image; case does not matter."""


def label_ending(name: str) -> str:
    """The ending of `LABEL_ENDINGS` that a case name carries, as it is written there, or ""."""
    ending = next((e for e in LABEL_ENDINGS if name.lower().endswith(e) and len(name) > len(e)), "")
    return name[len(name) - len(ending) :] if ending else ""


def find_images(path: str | Path) -> list[Path]:
    """The file itself, or every image file in a folder and the folders below, sorted. A folder that
    holds several DICOM files is one image, the series.

    Hidden files and stores are passed over, and so are label files beside their image
    (`NAME_gt.nii.gz` beside `NAME.nii.gz`; `LABEL_ENDINGS`). Raises InputError where nothing is
    there to read.
    """
    doing = "looking for images"
    folder = Path(path)
    if folder.is_file():
        if not suffix_of(folder):
            raise unknown_ending(folder, doing)
        return [folder]
    if not folder.is_dir():
        raise InputError(
            doing, file=folder, expected="a file or a folder", found="nothing there", kind="missing"
        )
    try:
        found = sorted(file for file in visible(folder) if suffix_of(file) and file.is_file())
    except OSError as error:
        raise InputError(
            doing,
            file=folder,
            expected="a folder that may be read",
            found=str(error.strerror),
            kind="damaged",
        ) from error
    found = _with_series(folder, found)
    names = {(file.parent, case_name(file)) for file in found}
    images = [file for file in found if not _is_label_of(file, names)]
    if not images:
        raise InputError(
            doing,
            file=folder,
            expected="at least one image (" + " ".join(SUFFIXES) + ")",
            found="none",
            kind="missing",
        )
    return images


def is_store(folder: Path) -> bool:
    """Whether it is what `prepare` wrote, whose arrays must not be read as images."""
    return (folder / "manifest.json").is_file() and (folder / "records").is_dir()


def visible(folder: Path) -> list[Path]:
    """All that is in a folder and those below, but what is hidden or in a store below it."""
    found: list[Path] = []
    for path in folder.iterdir():
        if not path.name.startswith("."):
            found.append(path)
            if path.is_dir() and not path.is_symlink() and not is_store(path):
                found += visible(path)
    return sorted(found)


def _with_series(folder: Path, found: list[Path]) -> list[Path]:
    """DICOM files of one folder → the folder, where there are several; files without an ending
    count too.
    """
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    hidden = [any(p.startswith(".") for p in path.relative_to(folder).parts) for path in folders]
    series = {
        home: files
        for home, skip in zip(folders, hidden, strict=True)
        if not skip and (files := series_files(home))
    }
    whole = [home if len(files) > 1 else files[0] for home, files in series.items()]
    return sorted([*(file for file in found if suffix_of(file) not in DICOM), *whole])


def _is_label_of(file: Path, names: set[tuple[Path, str]]) -> bool:
    name = case_name(file)
    ending = label_ending(name)
    return bool(ending) and (file.parent, name.removesuffix(ending)) in names


def unknown_ending(file: Path, doing: str) -> InputError:
    """The error for a file whose kind isn't known."""
    return InputError(
        doing,
        file=file,
        expected="a file that ends in " + " ".join(SUFFIXES),
        found=f"a file that ends in {file.suffix or 'nothing'}",
        kind="unsupported",
    )
