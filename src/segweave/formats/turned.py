"""Turns the voxels of MHA, NRRD and DICOM files to a case's axes and gives them a NIfTI header, so
that label maps can be written in the same geometry.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import case_affine, source_grid, spacing_of
from segweave.formats.content import HEADER_ATTRIBUTE, Content

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turned_content(
    values: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    as_label: bool,
    single: bool,
    oriented: bool,
    attributes: dict[str, Any] | None = None,
) -> Content:
    """Voxels on the file's own axes (x, y, z), with channels as a fourth axis where there are any,
    and their affine (x, y, z, 1) → RAS+ mm, as a case's content.
    """
    shape = (values.shape[0], values.shape[1], values.shape[2])
    grid = source_grid(affine, shape)
    if values.ndim == 3:
        turned = grid.to_case(values)
        image = turned[:, None]
    else:
        planes = [grid.to_case(values[..., k]) for k in range(values.shape[3])]
        image = turned = np.stack(planes, axis=1)
    turned_affine = case_affine(affine, grid)
    return Content(
        image=None if as_label else np.ascontiguousarray(image),
        label=np.ascontiguousarray(turned) if as_label else None,
        stack="single" if single else "space",
        affine=turned_affine,
        spacing=spacing_of(turned_affine),
        source_grid=grid,
        oriented=oriented,
        attributes={HEADER_ATTRIBUTE: _header(affine, shape), **(attributes or {})},
    )


def _header(affine: NDArray[np.float64], shape: tuple[int, ...]) -> str:
    """A NIfTI header (base64) of this geometry."""
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    # NIfTI-1 has 16 bits for a size.
    if max(shape) > 32767:
        header = nibabel.Nifti2Header()
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    header["pixdim"][1:4] = spacing_of(affine)
    header.set_xyzt_units("mm")
    header["vox_offset"] = header.structarr.nbytes + 4
    header["magic"] = b"n+1" if header.structarr.nbytes == 348 else b"n+2\0\r\n\x1a\n"
    return base64.b64encode(bytes(header.binaryblock)).decode("ascii")
