"""What ACDC's raw release says of a patient: phases, diagnosis, height and weight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segweave.errors import InputError

PHASES = ("ED", "ES")


def read_facts(patient: Path, warnings: list[str]) -> dict[str, Any]:
    """The facts in Info.cfg; without it, the frames that are there in the order of time."""
    path = patient / "Info.cfg"
    if not path.is_file():
        warnings.append(f"{patient.name} has no Info.cfg: its first frame is taken for ED")
        return phases_in_order(patient)
    names = {"Group": "diagnosis", "Height": "height_cm", "Weight": "weight_kg"}
    facts: dict[str, Any] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            key, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                continue
            if key in PHASES:
                facts[key] = int(value)
            elif key in names:
                facts[names[key]] = value if key == "Group" else float(value)
    except (OSError, ValueError) as error:
        raise InputError(
            f"reading what is known of {patient.name}",
            file=path,
            expected="lines like 'ED: 1' and 'Height: 170.0'",
            found=str(error),
            kind="layout",
        ) from error
    return facts


def phases_in_order(patient: Path) -> dict[str, Any]:
    """The frames that are there, the first one taken for ED."""
    pattern = re.compile(rf"{patient.name}_frame(\d+)\.nii(?:\.gz)?")
    frames = sorted(int(m[1]) for p in patient.iterdir() if (m := pattern.fullmatch(p.name)))
    return dict(zip(PHASES, frames, strict=False))
