"""ETIS-Larib Polyp DB, 196 frames of 34 colonoscopy sequences, which papers test on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segweave.datasets._pairs import PairFolders, pair_folders, subfolder
from segweave.datasets._polyps import NUMBER, frame_finders, plan_stills
from segweave.datasets.base import Plan
from segweave.registry import DatasetCard

CARD = DatasetCard(
    name="etis-larib",
    title="ETIS-Larib Polyp DB, polyps in colonoscopy videos",
    entry="plan",
    paper="Silva, Histace, Romain, Dray, Granado, Toward embedded detection of polyps in WCE "
    "images for early diagnosis of colorectal cancer, International Journal of Computer Assisted "
    "Radiology and Surgery 9(2), 2014, doi 10.1007/s11548-013-0926-3",
    licence="research only",
    stack="single",
    kind="binary",
    classes=("background", "polyp"),
    expected={"slices": 196},
    terms="Images are property of Lariboisière Hospital (APHP) and the ETIS laboratory; the paper "
    "must be cited.",
)

_FOLDERS = ("ETIS-LaribPolypDB", "ETIS-Larib", "ETIS")


def plan(
    source: Path,
    *,
    layout: Literal["auto", "release", "pairs", "pranet"] = "auto",
    sequences: str | Path | None = None,
    groups: str | Path | None = None,
) -> Plan:
    """Find ETIS-Larib: `release` (N.tif in ETIS-LaribPolypDB, pN.tif in Ground Truth), `pairs`
    (images and masks) or `pranet` (TestDataset/ETIS-LaribPolypDB).

    The release does not say which frames belong to which of its 34 sequences. With `sequences` each
    becomes a video, with `groups` frames stay single images. Splits: `test-only`, and by group
    where groups are known.

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        sequences: A CSV table (sequence, first_frame, last_frame); each sequence becomes a video.
        groups: A CSV table (case, group) that says which frames are of one patient.

    Raises InputError where no layout fits, UsageError where several do.
    """
    finders = frame_finders(_release, _FOLDERS)
    expected = (
        "folders ETIS-LaribPolypDB and Ground Truth, images and masks, or "
        "TestDataset/ETIS-LaribPolypDB"
    )
    return plan_stills(CARD, source, layout, finders, expected, sequences, groups)


def _release(source: Path) -> list[PairFolders]:
    roots = [source, subfolder(source, *_FOLDERS)]
    truth = ("Ground Truth", "GroundTruth")
    return pair_folders(roots, _FOLDERS, truth, image=NUMBER, mask=f"p?{NUMBER}")
