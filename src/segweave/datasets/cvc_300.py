"""CVC-EndoScene (CVC-300 and CVC-612 together) and the 60 frames of it that papers call CVC-300."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segweave.datasets._pairs import PairFolders, pair_folders, subfolder
from segweave.datasets._polyps import NUMBER, plain_folders, plan_stills, pranet_folders
from segweave.datasets.base import Plan
from segweave.registry import DatasetCard

CARDS = (
    DatasetCard(
        name="cvc-300",
        title="CVC-300 (CVC-T), the 60 test frames of PraNet's benchmark",
        entry="plan",
        paper="Vázquez, Bernal, Sánchez, Fernández-Esparrach, López, Romero, Drozdzal, Courville, "
        "A Benchmark for Endoluminal Scene Segmentation of Colonoscopy Images, Journal of "
        "Healthcare Engineering, 2017, doi 10.1155/2017/4037190",
        licence="research only",
        options={"whole": False},
        stack="single",
        kind="binary",
        classes=("background", "polyp"),
        expected={"slices": 60},
        terms="The paper must be cited.",
    ),
    DatasetCard(
        name="cvc-endoscene",
        title="CVC-EndoScene, polyps in the frames of CVC-300 and CVC-612",
        entry="plan",
        paper="Vázquez, Bernal, Sánchez, Fernández-Esparrach, López, Romero, Drozdzal, Courville, "
        "A Benchmark for Endoluminal Scene Segmentation of Colonoscopy Images, Journal of "
        "Healthcare Engineering, 2017, doi 10.1155/2017/4037190",
        licence="research only",
        options={"whole": True},
        stack="single",
        kind="binary",
        classes=("background", "polyp"),
        expected={"slices": 912},
        terms="The paper must be cited.",
    ),
)


def plan(
    source: Path,
    *,
    layout: Literal["auto", "release", "pairs", "pranet"] = "auto",
    sequences: str | Path | None = None,
    groups: str | Path | None = None,
    whole: bool = False,
) -> Plan:
    """Find CVC-300 or, if `whole`, CVC-EndoScene.

    EndoScene: `release` (CVC-300 and CVC-612, each with bbdd for images and gtpolyp for masks; case
    ids CVC-300_N and CVC-612_N; only polyps are read, not lumen and highlights). CVC-300: `pairs`
    (images and masks) or `pranet` (TestDataset/CVC-300). Splits: `test-only`; by group where groups
    are known; of EndoScene `seed-0-leaks` (70 : 10 : 20 by frame).

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        sequences: A CSV table (sequence, first_frame, last_frame); each sequence becomes a video.
            Not for EndoScene, whose two halves start to count anew.
        groups: A CSV table (case, group) that says which frames are of one patient.
        whole: Read CVC-EndoScene.

    Raises InputError where no layout fits, UsageError where several do.
    """
    card = CARDS[1] if whole else CARDS[0]
    if whole:
        expected = "CVC-300 and CVC-612 with folders bbdd and gtpolyp"
        return plan_stills(
            card, source, layout, {"release": _release}, expected, None, groups, by_image=True
        )
    finders = {
        "pairs": lambda folder: plain_folders(folder, NUMBER),
        "pranet": lambda folder: pranet_folders(folder, ["CVC-300", "CVC-T"]),
    }
    expected = "folders images and masks, or TestDataset/CVC-300"
    return plan_stills(card, source, layout, finders, expected, sequences, groups)


def _release(source: Path) -> list[PairFolders]:
    root = subfolder(source, "CVC-EndoSceneStill") or source
    found: list[PairFolders] = []
    for half in ("CVC-300", "CVC-612"):
        folders = [subfolder(root, half)]
        found += pair_folders(
            folders, ("bbdd",), ("gtpolyp",), image=NUMBER, mask=NUMBER, prefix=f"{half}_"
        )
    return found
