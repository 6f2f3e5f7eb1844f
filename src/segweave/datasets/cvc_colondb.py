"""CVC-ColonDB, 380 colonoscopy frames of 15 video sequences, which papers test on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segweave.datasets._pairs import PairFolders, subfolder
from segweave.datasets._polyps import NUMBER, frame_finders, plan_stills
from segweave.datasets.base import Plan
from segweave.registry import DatasetCard

CARD = DatasetCard(
    name="cvc-colondb",
    title="CVC-ColonDB, polyps in colonoscopy videos",
    entry="plan",
    paper="Bernal, Sánchez, Vilariño, Towards automatic polyp detection with a polyp appearance "
    "model, Pattern Recognition 45(9), 2012, doi 10.1016/j.patcog.2012.03.002",
    licence="research only",
    stack="single",
    kind="binary",
    classes=("background", "polyp"),
    expected={"slices": 380},
    terms="The paper must be cited.",
)


def plan(
    source: Path,
    *,
    layout: Literal["auto", "release", "pairs", "pranet"] = "auto",
    sequences: str | Path | None = None,
    groups: str | Path | None = None,
) -> Plan:
    """Find CVC-ColonDB: `release` (N.tiff with its mask pN.tiff in one folder), `pairs` (images
    and masks) or `pranet` (TestDataset/CVC-ColonDB).

    The release does not say which frames belong to which of its 15 sequences. With `sequences` each
    becomes a video, with `groups` frames stay single images. Splits: `test-only`; by group where
    groups are known; `seed-0-leaks` (70 : 10 : 20 by frame) where frames are single images.

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        sequences: A CSV table (sequence, first_frame, last_frame); each sequence becomes a video.
        groups: A CSV table (case, group) that says which frames are of one patient.

    Raises InputError where no layout fits, UsageError where several do.
    """
    finders = frame_finders(_release, ["CVC-ColonDB"])
    expected = "N.tiff with pN.tiff, folders images and masks, or TestDataset/CVC-ColonDB"
    return plan_stills(CARD, source, layout, finders, expected, sequences, groups, by_image=True)


def _release(source: Path) -> list[PairFolders]:
    for folder in (source, subfolder(source, "CVC-ColonDB"), subfolder(source, "data")):
        if folder is not None and any(folder.glob("p[0-9]*.*")):
            return [PairFolders(folder, folder, NUMBER, f"p{NUMBER}")]
    return []
