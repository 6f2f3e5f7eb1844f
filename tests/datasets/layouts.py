"""Every layout of every data set, made of a few tiny noisy files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from PIL import Image

SIZE = (20, 24)
CASES = 26

AFFINE = np.diag([-1.0, -1.0, 4.0, 1.0])


@dataclass(frozen=True)
class Part:
    """An image and its label's own file (None: the label is in the image's file)."""

    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Made:
    """A synthetic source: where it is, the parts of it that may be broken, the options of check,
    and what its labels are ("binary", "ids", "instances" or "any", which may be binary or numbers;
    "none" where there are images alone).
    """

    source: Path
    parts: list[Part]
    labels: str = "ids"
    options: dict[str, Any] = field(default_factory=dict)


Maker = Callable[[Path], Made]


def pixels(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Noise that is another in every case."""
    return np.random.default_rng(number).integers(0, 255, shape).astype(np.uint8)


def label_of(shape: tuple[int, ...], highest: int = 1) -> np.ndarray:
    """A block of each id on background."""
    label = np.zeros(shape, np.uint8)
    for id in range(1, highest + 1):
        label[..., 2 + 2 * id : 4 + 2 * id, 4:12] = id
    return label


def save(path: Path, values: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options = {"quality": 95, **options}
    Image.fromarray(values).save(path, **options)
    return path


def _pictures(image: str, mask: str, labels: str = "binary") -> Maker:
    """Pictures and masks whose paths are patterns of their number."""

    def make(out: Path) -> Made:
        parts = []
        for n in range(1, CASES):
            values = label_of(SIZE, 2 if labels in ("ids", "instances") else 1)
            values = values * np.uint8(255) if labels in ("binary", "any") else values
            parts.append(
                Part(
                    save(out / image.format(n=n), pixels(n, (*SIZE, 3))),
                    save(out / mask.format(n=n), values),
                )
            )
        return Made(out, parts, labels)

    return make


def _glas(out: Path) -> Made:
    made = _pictures("train_{n}.bmp", "train_{n}_anno.bmp", "instances")(out)
    rows = [f"train_{n},{n // 4},benign" for n in range(1, CASES)]
    (out / "Grade.csv").write_text("\n".join(["name,patient ID,grade (GlaS)", *rows]))
    return made


def volume(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def _volumes(image: str, label: str, *, highest: int) -> Maker:
    """NIfTI volumes of three slices and their label maps."""

    def make(out: Path) -> Made:
        shape = (SIZE[1], SIZE[0], 3)
        block = label_of(shape[::-1], highest).T
        parts = [
            Part(
                volume(out / image.format(n=n), pixels(n, shape).astype(np.int16)),
                volume(out / label.format(n=n), block),
            )
            for n in range(1, CASES)
        ]
        return Made(out, parts)

    return make


def _scans(out: Path) -> Made:
    """CT volumes in Hounsfield units, without labels."""
    parts = []
    for n in range(1, CASES):
        values = pixels(n, (SIZE[1], SIZE[0], 3)).astype(np.int16) - np.int16(1000)
        parts.append(Part(volume(out / f"ct{n}.nii.gz", values)))
    return Made(out, parts, "none")


def _acdc(out: Path) -> Made:
    stem = "patient{n:03d}/patient{n:03d}_frame"
    made = _volumes(f"{stem}01.nii.gz", f"{stem}01_gt.nii.gz", highest=3)(out)
    for n in range(1, CASES):
        (out / f"patient{n:03d}" / "Info.cfg").write_text("ED: 1\nGroup: NOR\n")
    return made


def _decathlon(out: Path) -> Made:
    made = _volumes("imagesTr/ct_{n}.nii.gz", "labelsTr/ct_{n}.nii.gz", highest=2)(out)
    rows = [
        {"image": f"./imagesTr/ct_{n}.nii.gz", "label": f"./labelsTr/ct_{n}.nii.gz"}
        for n in range(1, CASES)
    ]
    about = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "a", "2": "b"},
        "numTraining": len(rows),
        "training": rows,
    }
    (out / "dataset.json").write_text(json.dumps(about))
    return made


def _nnunet(out: Path) -> Made:
    made = _volumes("imagesTr/ct_{n:02d}_0000.nii.gz", "labelsTr/ct_{n:02d}.nii.gz", highest=2)(out)
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": CASES - 1,
        "file_ending": ".nii.gz",
    }
    (out / "dataset.json").write_text(json.dumps(about))
    return made


def write_array(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def _arrays(pattern: str, *, highest: int, slices: int = 3) -> Maker:
    """Files that hold an image and its label."""

    def make(out: Path) -> Made:
        parts = []
        for n in range(1, CASES):
            shape = (slices, *SIZE) if slices else SIZE
            image = pixels(n, shape).astype(np.float32)
            path = out / pattern.format(n=n)
            parts.append(Part(write_array(path, image=image, label=label_of(shape, highest))))
        return Made(out, parts)

    return make


def _listed(make: Maker) -> Maker:
    """The same files as rows of a table."""

    def written(out: Path) -> Made:
        made = make(out)
        lines = ["image,mask,case"]
        for n, part in enumerate(made.parts):
            mask = "" if part.label is None else part.label.relative_to(out)
            lines.append(f"{part.image.relative_to(out)},{mask},c{n}")
        table = out / "cases.csv"
        table.write_text("\n".join(lines))
        return Made(table, made.parts, made.labels, made.options)

    return written


def _folder(make: Maker) -> Maker:
    """The same files as a folder of images and one of masks."""

    def written(out: Path) -> Made:
        made = make(out)
        return Made(out / "images", made.parts, "ids", {"masks": out / "masks"})

    return written


def _isic(year: int) -> dict[str, Maker]:
    image, mask = "ISIC_{n:07d}.jpg", "ISIC_{n:07d}_segmentation.png"
    start = {2016: "ISBI2016_ISIC_Part1_Training", 2017: "ISIC-2017_Training"}.get(year, "")
    data, truth = f"{start}_Data", f"{start}_{'Part1_' if year == 2017 else ''}GroundTruth"
    if year == 2018:
        data, truth = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
    return {
        f"isic{year} release": _pictures(f"{data}/{image}", f"{truth}/{mask}"),
        f"isic{year} parts": _pictures(f"train/images/{image}", f"train/masks/{mask}"),
        f"isic{year} pairs": _pictures(f"images/{image}", f"masks/{mask}"),
    }


_LESION = "PH2 Dataset images/IMD{n:03d}/IMD{n:03d}_"
_TEST = "TestDataset/"
_PLAIN = _pictures("images/{n}.png", "masks/{n}.png")

MAKERS: dict[str, Maker] = {
    "acdc raw": _acdc,
    "acdc h5": _arrays("patient{n:03d}_frame01.h5", highest=3),
    "acdc npz": _arrays("test/case_{n:03d}_volume_ED.npz", highest=3),
    "synapse raw": _volumes("img/img{n:04d}.nii.gz", "label/label{n:04d}.nii.gz", highest=3),
    "synapse transunet": _arrays("test_vol_h5/case{n:04d}.npy.h5", highest=3),
    **_isic(2016),
    **_isic(2017),
    **_isic(2018),
    "ph2 release": _pictures(
        _LESION + "Dermoscopic_Image/IMD{n:03d}.bmp", _LESION + "lesion/IMD{n:03d}_lesion.bmp"
    ),
    "ph2 pairs": _pictures("images/IMD{n:03d}.bmp", "masks/IMD{n:03d}_lesion.bmp"),
    "cvc-clinicdb release": _pictures("Original/{n}.tif", "Ground Truth/{n}.tif"),
    "cvc-clinicdb pairs": _PLAIN,
    "cvc-clinicdb pranet": _pictures("TrainDataset/image/{n}.png", "TrainDataset/mask/{n}.png"),
    "kvasir-seg release": _pictures("images/cju{n}.jpg", "masks/cju{n}.jpg"),
    "kvasir-seg pranet": _pictures(
        _TEST + "Kvasir/images/cju{n}.png", _TEST + "Kvasir/masks/cju{n}.png"
    ),
    "etis-larib release": _pictures("ETIS-LaribPolypDB/{n}.tif", "Ground Truth/p{n}.tif"),
    "etis-larib pairs": _PLAIN,
    "etis-larib pranet": _pictures(
        _TEST + "ETIS-LaribPolypDB/images/{n}.png", _TEST + "ETIS-LaribPolypDB/masks/{n}.png"
    ),
    "cvc-colondb release": _pictures("{n}.tiff", "p{n}.tiff"),
    "cvc-colondb pairs": _PLAIN,
    "cvc-colondb pranet": _pictures(
        _TEST + "CVC-ColonDB/images/{n}.png", _TEST + "CVC-ColonDB/masks/{n}.png"
    ),
    "cvc-300 pairs": _PLAIN,
    "cvc-300 pranet": _pictures(
        _TEST + "CVC-300/images/{n}.png", _TEST + "CVC-300/masks/{n}.png"
    ),
    "cvc-endoscene release": _pictures("CVC-300/bbdd/{n}.bmp", "CVC-300/gtpolyp/{n}.bmp"),
    "glas release": _glas,
    "glas labelcol": _pictures(
        "Train_Folder/img/t_{n}.png", "Train_Folder/labelcol/t_{n}_anno.png", "any"
    ),
    "decathlon": _decathlon,
    "nnunet": _nnunet,
    "low-dose": _scans,
    "folder": _folder(_pictures("images/p{n}.png", "masks/p{n}_mask.png", "ids")),
    "folder volumes": _folder(
        _volumes("images/ct{n}.nii.gz", "masks/ct{n}_seg.nii.gz", highest=2)
    ),
    "table": _listed(_volumes("ct{n}.nii.gz", "seg{n}.nii.gz", highest=2)),
    "table arrays": _listed(_arrays("ct{n}.npz", highest=2)),
    "table pictures": _listed(_pictures("i/p{n}.jpg", "m/p{n}.png", "ids")),
}  # fmt: skip
"""Data set and layout → what makes it. Where a set has no layouts by name, its own and variants."""
