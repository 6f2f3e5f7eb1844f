"""Looks at the headers of NIfTI files alone, no voxel being read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segweave.data.case import case_affine, source_grid, spacing_of
from segweave.formats.content import Content, Geometry
from segweave.formats.guard import check_file, reading
from segweave.formats.nifti import header_affine, header_shape, is_oriented, read_header


def check_header(file: Path) -> None:
    """Raise InputError where a file's header can't be read, or its sform, qform and pixdim
    disagree.
    """
    doing = "reading a header"
    with reading(doing, file):
        header = read_header(check_file(file, doing), doing)
        header_affine(header, doing, file, "check")


def read_geometry(file: Path, geometry: Geometry) -> Content:
    """The geometry in a file's header, no voxel being read: a content whose image is an
    array of zeros that takes no memory.
    """
    doing = "reading a header"
    with reading(doing, file):
        header = read_header(file, doing)
        declared = header_shape(header, doing, file)[:3]
        shape = (*declared, *(1,) * (3 - len(declared)))
        affine = header_affine(header, doing, file, geometry)
        grid = source_grid(affine, shape)
        turned = case_affine(affine, grid)
    sides = tuple(grid.shape[axis] for axis in grid.axes)
    return Content(
        image=np.broadcast_to(np.uint8(0), (sides[0], 1, *sides[1:])),
        label=None,
        stack="space" if len(declared) > 2 else "single",
        affine=turned,
        spacing=spacing_of(turned),
        source_grid=grid,
        oriented=is_oriented(header),
    )
