"""Reads cases and label maps, whatever the format of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave import __version__
from segweave.data.case import Case, Provenance, Stack, farthest_apart
from segweave.errors import InputError
from segweave.formats.content import Content, Geometry, Request
from segweave.formats.dicom import read_dicom
from segweave.formats.dicom_file import is_dicom
from segweave.formats.files import unknown_ending
from segweave.formats.guard import as_label as to_label
from segweave.formats.guard import check_file
from segweave.formats.nifti import names_orientation
from segweave.formats.pictures import exif_turn, two_values, white_as_one
from segweave.formats.table import PICTURES, case_name, format_of, suffix_of
from segweave.storage import sha256_of

_READING_IMAGE = "reading an image"
_READING_LABEL = "reading a label map"


def read_content(path: str | Path, request: Request) -> Content:
    """The content of any file that can be read, by its ending; a folder is a DICOM series, and a
    file of another ending may be DICOM by its content.

    Raises InputError for an unknown ending and as the format's reader does.
    """
    if Path(path).is_dir():
        return read_dicom(Path(path), request)
    file = check_file(path, request.doing)
    format = format_of(file)
    if format is None and is_dicom(file):
        return read_dicom(file, request)
    if format is None or format.read is None:
        raise unknown_ending(file, request.doing)
    return format.read(file, request)


def read_array(path: str | Path) -> NDArray[Any]:
    """The pixels of any file that can be read, as (slices, channels, height, width) on a case's
    axes, in the file's own values. Raises InputError as `read_case` does.
    """
    return _read_image(path, "affine", with_label=False)[1]


def _read_image(
    path: str | Path, geometry: Geometry, with_label: bool, channels: bool = False
) -> tuple[Content, NDArray[Any]]:
    request = Request(_READING_IMAGE, geometry, with_label=with_label, channels=channels)
    content = read_content(path, request)
    if content.image is None or 0 in content.image.shape:
        raise InputError(_READING_IMAGE, file=path, expected="pixels", found="none", kind="damaged")
    return content, content.image


def read_case(
    path: str | Path,
    *,
    label: str | Path | None = None,
    id: str | None = None,
    group: str | None = None,
    geometry: Geometry = "check",
    stack: Stack | None = None,
    with_label: bool = True,
    channels: bool = False,
    scaled: bool = True,
) -> Case:
    """Read one image or volume, with its label from `label` or from the same file (h5, npz).

    `id` is the file's name without its ending unless given, `group` is `id` unless given.
    `geometry` decides where a NIfTI header's affine and pixdim disagree: "check" raises, "pixdim"
    takes pixdim's steps along the affine's directions, "affine" takes the affine. `stack` is
    `space` for NIfTI volumes and arrays of several slices, else `single`. `with_label=False` leaves
    a label in the same file unread. `channels` lets a NIfTI file have a fourth axis of channels; a
    folder is a DICOM series; `scaled` is that of `read_label`. Raises InputError for every file
    that is missing, damaged, too large or inconsistent.
    """
    content, image = _read_image(path, geometry, with_label and label is None, channels)
    file = Path(path)
    name = case_name(file) if id is None else id
    if stack == "single" and image.shape[0] != 1:
        raise InputError(
            _READING_IMAGE,
            file=file,
            expected="a single image",
            found=f"{len(image)} slices",
            kind="unsupported",
        )
    embedded = None
    if content.label is not None:
        embedded = to_label(content.label, f"{_READING_LABEL} beside its image", file)
        _check_size(embedded, image, file)
    case = Case(
        id=name,
        group=name if group is None else group,
        image=image,
        label=embedded,
        stack=content.stack if stack is None else stack,
        affine=content.affine,
        spacing=content.spacing,
        source_grid=content.source_grid,
        provenance=Provenance(str(file), sha256_of(file), f"segweave {__version__}"),
        attributes=content.attributes,
    )
    if label is None:
        return case
    from dataclasses import replace

    return replace(case, label=read_label(label, case, geometry=geometry, scaled=scaled))


def _check_size(
    label: NDArray[Any], image: NDArray[Any], file: Path, source: Path | None = None
) -> None:
    """Raise InputError for a label of another size than the image, whose file is `source`."""
    grid = (image.shape[0], *image.shape[2:])
    crossed = label.shape[-2:] == grid[:0:-1]
    turned = crossed and {exif_turn(file), exif_turn(source or file)} != {1}
    if label.ndim not in (3, 4) or (label.shape[0], *label.shape[-2:]) != grid:
        raise InputError(
            _READING_LABEL,
            file=file,
            expected="a label of the image's size, {} × {} × {} (slices, rows, columns)".format(
                *grid
            ),
            found=" × ".join(map(str, label.shape)),
            remedy="turn the mask as the image's pixels are stored: its EXIF orientation is not "
            "applied"
            if turned
            else "check that image and label belong together",
            kind="size",
        )


def read_label(
    path: str | Path,
    case: Case,
    *,
    geometry: Geometry = "check",
    scaled: bool = True,
    threshold: int | None = None,
) -> NDArray[np.uint8]:
    """The label map of `case`, uint8 (slices, height, width) on the case's axes (with a class axis
    after slices where the file holds overlapping classes).

    Pictures that hold nothing but 0 and 255 are read as 0 and 1 if `scaled`, which is right where
    there is one class and nothing is ignored (`TargetSpec.white_is_one`). A picture that is stored
    with a loss (JPEG) holds 0 and 255 with noise, never class ids. With a `threshold`, what is
    above it (in any channel) is 1 and the rest 0, in a map of any greys that holds more than 0 and
    1. A label may have other axes than its image, as long as its voxels are at the same positions
    in the patient; where one of the two files does not name its orientation, they are taken in the
    order of the files. Raises InputError for another size or position, and for values other than
    integers from 0 to 255.
    """
    file = Path(path)
    wanted = Request(_READING_LABEL, geometry, as_label=True, grey=threshold is not None)
    content = read_content(file, wanted)
    assert content.label is not None
    raw = content.label
    oriented = content.oriented and names_orientation(case.attributes)
    if content.source_grid is not None and case.affine is not None and not oriented:
        # Where a header has no orientation, label and image have the same voxels.
        raw = _regrid(raw, content, case)
    label = _classes(content, raw, file, scaled, threshold)
    source = case.provenance.file if case.provenance is not None else ""
    _check_size(label, case.image, file, Path(source))
    if content.affine is not None and case.affine is not None and oriented:
        grid = (case.slices, *case.size)
        apart = farthest_apart(content.affine, case.affine, grid)
        if apart > 0.1 * min(case.spacing or (1.0,)):
            raise InputError(
                _READING_LABEL,
                file=file,
                expected="a label on the same voxels as its image",
                found=f"voxels up to {apart:.3g} mm away from the image's",
                remedy=_HEADER_LOST
                if _is_default(content.affine)
                else "check that image and label belong together, or resample the label "
                "(nearest neighbour) onto the image",
                kind="geometry",
            )
    return np.ascontiguousarray(label)


_HEADER_LOST = (
    "its header is that of no scanner (steps of 1 mm, as written by programs that lose it): if its "
    "voxels are the image's, save it again with the image's header (nibabel: "
    "Nifti1Image(labels, image.affine, image.header))"
)


def _is_default(affine: NDArray[np.float64]) -> bool:
    """Whether an affine is that of a file in which nobody wrote one: the identity, axes turned."""
    steps = np.abs(affine[:3, :3])
    return bool(np.allclose(np.sort(steps, axis=0), [[0] * 3, [0] * 3, [1] * 3]))


def _classes(
    content: Content, raw: NDArray[Any], file: Path, scaled: bool, threshold: int | None = None
) -> NDArray[np.uint8]:
    """A label as it is stored → class ids."""
    if threshold is not None and (raw.max(initial=0) > 1 or content.lossy):
        return (raw > threshold).astype(np.uint8)
    label = to_label(raw, _READING_LABEL, file)
    if content.lossy:
        label = two_values(label[0], file, _READING_LABEL, lossy=True)[None] * np.uint8(255)
    return white_as_one(label) if scaled and suffix_of(file) in PICTURES else label


def _regrid(raw: NDArray[Any], content: Content, case: Case) -> NDArray[Any]:
    """A label on its own axes → on those of the case, by the order of its file's voxels."""
    assert content.source_grid is not None
    grid = case.source_grid
    if grid is None or content.source_grid.shape != grid.shape:
        return raw
    if raw.ndim == 3:
        return grid.to_case(content.source_grid.to_file(raw))
    planes = (raw[:, k] for k in range(raw.shape[1]))
    return np.stack([grid.to_case(content.source_grid.to_file(p)) for p in planes], axis=1)


def read_label_case(
    path: str | Path,
    *,
    id: str | None = None,
    group: str | None = None,
    geometry: Geometry = "check",
    stack: Stack | None = None,
    scaled: bool = True,
    threshold: int | None = None,
) -> Case:
    """A label map without its image, as a case whose image and label both are the map.

    For scoring folders of predictions against folders of references: read the reference with this
    and the prediction with `read_label(path, reference)`.

    Args:
        path: the file of the label map.
        id: the id of the case; the file's name without its ending unless given.
        group: the group of the case; its id unless given.
        geometry: as in `read_case`.
        stack: as in `read_case`.
        scaled: as in `read_label`.
        threshold: what is above this is 1 and the rest 0, in a map that holds more than 0 and 1.

    Raises InputError as `read_label` does.
    """
    file = Path(path)
    wanted = Request(_READING_LABEL, geometry, as_label=True, grey=threshold is not None)
    content = read_content(file, wanted)
    assert content.label is not None
    label = np.ascontiguousarray(_classes(content, content.label, file, scaled, threshold))
    if label.ndim not in (3, 4) or 0 in label.shape:
        raise InputError(
            _READING_LABEL,
            file=file,
            expected="a label map",
            found=f"shape {label.shape}",
            kind="unsupported",
        )
    name = case_name(file) if id is None else id
    single = content.stack == "single" or (content.affine is None and label.shape[0] == 1)
    return Case(
        id=name,
        group=name if group is None else group,
        image=label[:, None] if label.ndim == 3 else label,
        label=label,
        stack=stack or ("single" if single else "space"),
        affine=content.affine,
        spacing=content.spacing,
        source_grid=content.source_grid,
        provenance=Provenance(str(file), sha256_of(file), f"segweave {__version__}"),
        attributes=content.attributes,
    )
