"""Reads size and position from a NIfTI header, and refuses one that contradicts itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import farthest_apart, spacing_of, with_spacing
from segweave.errors import InputError
from segweave.formats.content import Geometry
from segweave.formats.guard import check_affine

HEADER_ATTRIBUTE = "nifti_header"
"""The attribute of a case that keeps the header of its file (base64), for its label maps."""

_MM_OF_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_APART = 0.1
"""Share of the smallest step by which sform and qform may differ: they are rounded."""


def header_shape(header: Any, doing: str, file: Path) -> tuple[int, ...]:
    """The sizes of the axes that the header declares; raises InputError where there are none."""
    axes = int(header["dim"][0])
    sizes = tuple(int(n) for n in header.get_data_shape()) if 1 <= axes <= 7 else ()
    if not sizes or min(sizes) < 1:
        raise InputError(
            doing,
            file=file,
            expected="two or three axes",
            found=f"size {sizes}" if sizes else f"{axes} axes",
            kind="unsupported",
        )
    return sizes


def _forms(header: Any) -> dict[str, NDArray[np.float64]]:
    """The affines that the header declares and that can be inverted: sform, qform."""
    from nibabel.spatialimages import HeaderDataError

    found = {}
    for name, read in (("sform", header.get_sform), ("qform", header.get_qform)):
        if header[f"{name}_code"] <= 0:
            continue
        try:
            affine = np.array(read(), dtype=np.float64)
        except (ValueError, ArithmeticError, HeaderDataError):
            continue
        if int(header["dim"][0]) < 3 and not affine[:3, 2].any():
            # A 2D image often has no third step; its only slice gets the normal of its plane.
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
        with np.errstate(all="ignore"):
            usable = np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) != 0
        if usable:
            found[name] = affine
    return found


def header_affine(header: Any, doing: str, file: Path, geometry: Geometry) -> NDArray[np.float64]:
    """The affine in millimetres, voxel axes of the file → RAS+, or InputError where sform, qform
    and pixdim disagree and `geometry` does not decide.
    """
    pixdim = tuple(float(step) for step in np.abs(header["pixdim"][1:4]))
    forms = _forms(header)
    if not forms and (header["sform_code"] > 0 or header["qform_code"] > 0):
        raise InputError(
            doing,
            file=file,
            expected="an sform or qform that can be inverted",
            found=f"none, pixdim {pixdim}",
            remedy="repair the header",
            kind="damaged",
        )
    order = ("qform", "sform") if geometry == "qform" else ("sform", "qform")
    chosen = next((forms[name] for name in order if name in forms), None)
    affine = np.array(header.get_base_affine(), np.float64) if chosen is None else chosen.copy()
    if int(header["dim"][0]) < 3:
        if chosen is None and not affine[:3, 2].any():
            affine[2, 2] = 1.0
        pixdim = (*pixdim[:2], float(np.linalg.norm(affine[:3, 2])))
    unit = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    check_affine(np.diag([unit] * 3 + [1.0]) @ affine, doing, file)
    if geometry == "pixdim" and not all(math.isfinite(step) and step > 0 for step in pixdim):
        raise InputError(
            doing,
            file=file,
            expected="positive steps in pixdim",
            found=f"pixdim {pixdim}",
            kind="damaged",
        )
    if geometry == "pixdim":
        affine = with_spacing(affine, pixdim)
    elif geometry == "check":
        _check_agreement(header, affine, pixdim, forms, doing, file)
    affine[:3] *= unit
    return affine


def _check_agreement(
    header: Any,
    affine: NDArray[np.float64],
    pixdim: tuple[float, ...],
    forms: dict[str, NDArray[np.float64]],
    doing: str,
    file: Path,
) -> None:
    """Raise InputError where the affine has other steps than pixdim, or sform and qform put a
    corner of the image elsewhere.
    """
    steps = spacing_of(affine)
    if not np.allclose(steps, pixdim, rtol=1e-3, atol=1e-4):
        raise InputError(
            doing,
            file=file,
            expected="one voxel size in the header's affine (sform, qform) and in its pixdim",
            found="steps of {} in the affine, {} in pixdim".format(
                *(" × ".join(f"{step:g}" for step in three) for three in (steps, pixdim))
            ),
            remedy="say which is right: --geometry pixdim (the affine's directions with "
            "pixdim's steps) or --geometry affine",
            kind="header",
        )
    if len(forms) < 2:
        return
    sizes = [max(1, int(n)) for n in header["dim"][1:4]]
    shape = tuple(sizes[k] if k < int(header["dim"][0]) else 1 for k in range(3))
    apart = farthest_apart(forms["sform"], forms["qform"], shape)
    if apart > _APART * min(steps):
        raise InputError(
            doing,
            file=file,
            expected="an sform and a qform that put the image at one position",
            found=f"corners up to {apart:.3g} mm apart (sform code {int(header['sform_code'])}, "
            f"qform code {int(header['qform_code'])})",
            remedy="say which is right: --geometry affine (the sform) or --geometry qform",
            kind="header",
        )


def is_oriented(header: Any) -> bool:
    """Whether a header names an orientation, by an sform or a qform."""
    return bool(header["sform_code"] > 0 or header["qform_code"] > 0)
