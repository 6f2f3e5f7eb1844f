"""CVC-ClinicDB, colonoscopy frames of 29 video sequences, each with one polyp."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segweave.data.splits import cases_of, seeded_split
from segweave.datasets import published_splits
from segweave.datasets._pairs import Pair, PairFolders, find_pairs, pair_folders, subfolder
from segweave.datasets._pictures import (
    common_splits,
    provenance_of,
    single_item,
    target_of,
    video_items,
)
from segweave.datasets._polyps import (
    FCBFORMER,
    NUMBER,
    Spans,
    fcbformer_split,
    plain_folders,
    pranet_folders,
    read_sequences,
    videos,
)
from segweave.datasets.base import Item, Plan, choose_layout
from segweave.datasets.published_splits import load_split
from segweave.errors import UsageError, nearest
from segweave.registry import DatasetCard
from segweave.storage import read_json

CARD = DatasetCard(
    name="cvc-clinicdb",
    title="CVC-ClinicDB, polyps in colonoscopy videos",
    entry="plan",
    paper="Bernal, Sánchez, Fernández-Esparrach, Gil, Rodríguez, Vilariño, WM-DOVA maps for "
    "accurate polyp highlighting in colonoscopy: Validation vs. saliency maps from physicians, "
    "Computerized Medical Imaging and Graphics 43, 2015, doi 10.1016/j.compmedimag.2015.02.007",
    licence="research and education only, no commercial use",
    stack="time",
    kind="binary",
    classes=("background", "polyp"),
    expected={"slices": 612},
    terms="The paper must be cited.",
)

FRAMES = 612
_EXPECTED = (
    "folders Original and Ground Truth (PNG or TIFF), images and masks, or TrainDataset and "
    "TestDataset as PraNet's authors packed them"
)


def plan(
    source: Path,
    *,
    layout: Literal["auto", "release", "pairs", "pranet"] = "auto",
    unit: Literal["video", "frame"] = "video",
    sequences: str | Path | None = None,
) -> Plan:
    """Find CVC-ClinicDB in one of its layouts.

    `release` is Original and Ground Truth, here or below PNG or TIF; `pairs` is images and masks;
    `pranet` is TrainDataset, whose names of digits alone are this set's, and TestDataset.

    With `unit="video"` each of the 29 sequences is a case and a group; splits `sequences` (its
    source is in segweave/datasets/published_splits) and `fold-0` to `fold-4`. With `unit="frame"`
    each frame is a case and its own group, for papers that split frames at random: neighbouring
    frames are near copies, so these splits leak, and their names end in `-leaks`.

    Args:
        source: The folder that holds the data set.
        layout: The layout of the source; auto recognises it.
        unit: What a case is: a whole video, or a frame (as papers do that split frames).
        sequences: A CSV table (sequence, first_frame, last_frame) that replaces the shipped one.

    Raises InputError where no layout fits, UsageError where several do.
    """
    if unit not in ("video", "frame"):
        raise UsageError(
            "preparing CVC-ClinicDB",
            found=f"unit={unit!r}",
            remedy=nearest(str(unit), ("video", "frame")),
        )
    finders = {
        "release": _release,
        "pairs": lambda folder: plain_folders(folder, NUMBER),
        "pranet": lambda folder: pranet_folders(folder, ["CVC-ClinicDB"], NUMBER),
    }
    name, where = choose_layout("CVC-ClinicDB", source, layout, finders, _EXPECTED)
    pairs, left_out, errors = find_pairs(where)
    missing: list[str] = []
    spans, blocks = shipped_sequences()
    if sequences is not None:
        spans, blocks = read_sequences(sequences), {}
    found, absent, warnings = videos(pairs, spans)
    missing += absent
    home = {pair.id: video for video, frames in found.items() for pair in frames.values()}
    pairs = [pair for pair in pairs if pair.id in home]
    published = sequences is None
    if unit == "frame":
        items = [
            single_item(pair, pair.id, {"sequence": home[pair.id], "frame": int(pair.id)})
            for pair in pairs
        ]
        splits = _frame_splits(pairs, home, published=published)
        leaking = [split for split in splits if split.endswith("-leaks")]
        warnings.append(
            "every frame counts as its own group, though neighbouring frames are near copies: "
            f"{', '.join(leaking)} test on copies of what was trained on"
        )
    else:
        items = []
        of_item: dict[str, str] = {}
        for video, frames in found.items():
            cases: list[Item] = video_items(video, frames)
            items += cases
            of_item |= {item.id: video for item in cases}
        weights = {video: float(len(frames)) for video, frames in found.items()}
        splits = {}
        if published:
            splits["sequences"] = load_split("cvc-clinicdb").cases(of_item)
        splits |= common_splits(of_item, weights=weights, together=blocks, fixed=not published)
    return Plan(
        layout=name,
        target=target_of(CARD),
        items=items,
        splits=lambda there: splits,
        missing=missing,
        warnings=warnings,
        grouped=unit == "video",
        errors=errors,
        left_out=left_out,
        options=f"unit {unit}, sequences {spans}",
        provenance=provenance_of(CARD, split=load_split("cvc-clinicdb").source, other=FCBFORMER),
    )


def shipped_sequences() -> tuple[Spans, dict[str, str]]:
    """Sequence → (first, last frame), and sequence → the block of neighbours that may show the
    same patient; the source of the table is in the split's file.
    """
    file = Path(published_splits.__file__).parent / "cvc-clinicdb.json"
    raw = read_json(file, "reading a split")
    spans = {name: (int(first), int(last)) for name, (first, last) in raw["frames"].items()}
    return spans, {name: block[0] for block in raw["blocks"] for name in block}


def _release(source: Path) -> list[PairFolders]:
    roots = [source, *(subfolder(source, name) for name in ("PNG", "TIF", "TIFF", "CVC-ClinicDB"))]
    truth = ("Ground Truth", "GroundTruth", "Ground_Truth")
    return pair_folders(roots, ("Original",), truth, image=NUMBER, mask=NUMBER)


def _frame_splits(
    pairs: list[Pair], home: dict[str, str], *, published: bool
) -> dict[str, dict[str, list[str]]]:
    ids = [pair.id for pair in pairs]
    splits = {}
    if published:
        splits["sequences"] = cases_of(load_split("cvc-clinicdb").parts, home)
    splits["random-80-10-10-leaks"] = seeded_split(ids, (0.8, 0.1, 0.1), 0)
    if len(ids) == FRAMES:
        splits["fcbformer-leaks"] = fcbformer_split(ids)
    parts = {pair.id: pair.part for pair in pairs}
    if set(parts.values()) >= {"train", "test"}:
        splits["pranet-leaks"] = {
            "train": [id for id in ids if parts[id] == "train"],
            "valid": [],
            "test": [id for id in ids if parts[id] == "test"],
        }
    return splits
