"""Low-dose CT simulated from a folder of full-dose CT: for networks that remove its noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segweave.data.case import Case
from segweave.data.low_dose import Scanner, low_dose
from segweave.data.specs import TargetSpec
from segweave.datasets._groups import BY_NAME, groups_by, own_group_warning
from segweave.datasets._volumes import splits_by
from segweave.datasets.base import Item, Plan
from segweave.errors import InputError, UsageError
from segweave.formats import Geometry, find_images, read_case
from segweave.formats.table import whole_name
from segweave.registry import DatasetCard
from segweave.words import few

CARD = DatasetCard(
    name="low-dose",
    title="low-dose CT, simulated from a folder of full-dose CT volumes",
    entry="plan",
    stack="space",
    kind="image",
    classes=("CT",),
    generic=True,
    examples=(
        (
            "segweave prepare low-dose scans stores/low-dose --dose 0.25,0.1,0.05",
            "every volume at three doses",
        ),
        (
            "segweave prepare low-dose scans stores/low-dose --photons 200000 --seed 1",
            "a quarter of the dose, of a scanner with less light",
        ),
    ),
)

_DOING = "preparing low-dose CT"
_LABELS = ("label", "labels", "labelstr", "mask", "masks", "segmentations")
"""Folders of label maps, which are no CT."""


def plan(
    source: Path,
    *,
    dose: Sequence[float] = (0.25,),
    photons: float = 1e6,
    electronic_noise: float = 3.0,
    views: int = 360,
    window: Sequence[float] = (-160.0, 240.0),
    group: str | None = None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    geometry: Geometry = "check",
) -> Plan:
    """Read every CT volume of a folder and its subfolders (folders of label maps are passed over)
    and add the noise that a scan at a fraction of the dose has. The image of a case is the volume
    with noise, its true image the volume as it was; both in Hounsfield units.

    A slice is projected (Radon transform), its photons are counted with Poisson noise and that of
    the detector, and what the noise makes of the filtered back projection is added to the slice.
    Every volume is in the store once for each dose, all of one volume in one part of each split.

    Args:
        source: The folder of CT volumes in Hounsfield units.
        dose: The doses, fractions of that of the volumes.
        photons: Photons per ray at full dose, before the patient.
        electronic_noise: Sd of the noise of the detector, in photons per ray.
        views: Number of projections over half a turn.
        window: The lowest and the highest value that count in scores; their difference is the data
            range of PSNR and SSIM.
        group: A regular expression that finds the patient in a volume's name (its first bracket, or
            the whole match).
        fractions: Shares of groups for train, valid and test.
        seed: Decides the noise, and which groups go where.
        geometry: What decides where a NIfTI header contradicts itself: check (refuse), pixdim,
            affine (the sform) or qform.

    Raises InputError or UsageError for whatever does not fit.
    """
    doses = [float(one) for one in dose]
    if not doses or len(set(doses)) < len(doses) or not all(0 < one <= 1 for one in doses):
        raise UsageError(
            _DOING,
            expected="different doses above 0 and up to 1, fractions of the full dose",
            found=", ".join(f"{one:g}" for one in doses) or "none",
        )
    if len(window) != 2 or not window[0] < window[1]:
        raise UsageError(
            _DOING,
            expected="a window of two values, the lower first",
            found=", ".join(map(str, window)),
        )
    scanner = Scanner(photons, electronic_noise, views)
    volumes = _volumes(source)
    patients = groups_by(list(volumes), group, _DOING)
    items = [
        Item(
            id=f"{name}@{one:g}",
            files=(file,),
            read=partial(_read, file, name, patients[name], one, scanner, seed, geometry),
            group=patients[name],
        )
        for name, file in volumes.items()
        for one in doses
    ]
    options = (
        f"photons {photons:g}, electronic noise {electronic_noise:g}, views {views}, seed {seed}, "
        f"geometry {geometry}"
    )
    return Plan(
        layout="folder",
        target=TargetSpec(
            kind="image", names=("CT",), unit="HU", range=(float(window[0]), float(window[1]))
        ),
        items=items,
        splits=splits_by(fractions, seed),
        warnings=own_group_warning(group is not None, BY_NAME),
        options=options,
        provenance={"simulation": options, "doses": doses},
        grouped=group is not None,
    )


def _volumes(source: Path) -> dict[str, Path]:
    """Name → file of each volume. Raises InputError for two of one name."""
    files = [
        file
        for file in find_images(source)
        if not {part.lower() for part in file.relative_to(source).parts[:-1]} & {*_LABELS}
    ]
    names = [whole_name(file) for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not files:
        raise InputError(
            _DOING,
            file=source,
            expected="CT volumes of different names",
            found=f"several of the name {few(twice)}" if twice else "none",
            kind="layout",
        )
    return dict(zip(names, files, strict=True))


def _read(
    file: Path,
    name: str,
    group: str,
    dose: float,
    scanner: Scanner,
    seed: int,
    geometry: Geometry,
) -> Case:
    case = read_case(file, id=name, group=group, geometry=geometry, with_label=False)
    return low_dose(case, dose, scanner=scanner, seed=seed)
