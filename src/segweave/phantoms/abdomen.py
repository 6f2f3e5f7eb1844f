"""An abdominal phantom: synthetic CT volumes with eight organs, written as Synapse/BTCV is released
or as TransUNet's preprocessed files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segweave.datasets.published_splits import load_split
from segweave.datasets.synapse import TO_EIGHT
from segweave.errors import UsageError
from segweave.phantoms.thorax import Floats, smooth_noise
from segweave.phantoms.torso import Torso, paint_slice
from segweave.phantoms.writing import write_nifti
from segweave.runtime.randomness import numpy_stream
from segweave.storage import atomic_write


def write_abdomen(
    out: str | Path,
    cases: int = 6,
    seed: int = 0,
    *,
    size: int = 192,
    slices: int = 40,
    layout: Literal["raw", "transunet"] = "raw",
) -> Path:
    """Write `cases` synthetic scans into `out`.

    `raw` is BTCV's release: img/imgXXXX.nii.gz (int16 Hounsfield units) and label/labelXXXX.nii.gz
    (uint8, ids as released: 1 spleen, 2 right kidney, 3 left kidney, 4 gallbladder, 5 oesophagus,
    6 liver, 7 stomach, 8 aorta, 9 inferior vena cava, 11 pancreas). `transunet` is what
    TransUNet's program reads: train_npz/caseXXXX_sliceZZZ.npz and test_vol_h5/caseXXXX.npy.h5,
    clipped to -125..275 and scaled to 0..1, ids 0..8, with lists_Synapse. Each has `size` × `size`
    pixels and about `slices` slices that reach from the kidneys to the diaphragm. Numbers are
    chosen so that both parts of the published split get some. The same arguments give the same
    bytes. Returns `out`.
    """
    if not 1 <= cases <= 30 or slices < 3 or size < 32:
        raise UsageError(
            "making abdominal phantoms",
            expected="1 to 30 cases, at least 3 slices and 32 × 32 pixels",
            found=f"{cases} cases, {slices} slices, {size} × {size} pixels",
        )
    folder = Path(out)
    train, test = _names(cases)
    for name in sorted([*train, *test]):
        stream = numpy_stream(seed, "phantom", case=name)
        image, label, spacing = _volume(stream, size, slices)
        if layout == "raw":
            number = name.removeprefix("case")
            _write_nifti(folder / "img" / f"img{number}.nii.gz", image, spacing)
            _write_nifti(folder / "label" / f"label{number}.nii.gz", label, spacing)
        else:
            _write_prepared(folder, name, image, label, name in train)
    if layout == "transunet":
        _write_lists(folder, test)
    return folder


def _names(count: int) -> tuple[list[str], list[str]]:
    """Training and test scans, 60 : 40, as the published split has them."""
    parts = load_split("synapse").parts
    test = min(12, round(count * 0.4) or (1 if count > 1 else 0))
    return parts["train"][: count - test], parts["test"][:test]


def _volume(
    stream: np.random.Generator, size: int, slices: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8], tuple[float, float, float]]:
    """Hounsfield units and released ids (slices, rows, columns; from inferior to superior)."""
    torso = Torso.draw(stream)
    count = max(3, slices + int(stream.integers(-1, 2)))
    pixel = round(float(2.12 * torso.width / size * stream.uniform(1.0, 1.1)), 4)
    step = round(float(np.clip(200.0 / count, 2.5, 40.0)), 2)
    height = step * (np.arange(count) - 0.48 * (count - 1))
    position = (np.arange(size) - (size - 1) / 2) * pixel
    y, x = np.meshgrid(position, position, indexing="ij")
    shape = (count, size, size)
    wide = 14 / pixel
    warp_x = 3.5 * smooth_noise(stream, shape, (20 / step, wide, wide))
    warp_y = 3.5 * smooth_noise(stream, shape, (20 / step, wide, wide))
    fine = smooth_noise(stream, shape, (2 / step, 2.2 / pixel, 2.2 / pixel))
    image = np.empty(shape, np.float64)
    label = np.zeros(shape, np.uint8)
    for k, z in enumerate(height):
        paint_slice(
            torso, image[k], label[k], float(z), x + warp_x[k], y + warp_y[k], fine[k], pixel
        )
    return _scanned(stream, image, pixel), label, (step, pixel, pixel)


def _scanned(stream: np.random.Generator, image: Floats, pixel: float) -> NDArray[np.int16]:
    """What the scanner makes of it: blur of about a millimetre and noise of some 12 HU."""
    from scipy.ndimage import gaussian_filter

    blur = 0.6 / pixel
    noise = gaussian_filter(stream.standard_normal(image.shape), (0, 0.6, 0.6))
    noise *= stream.uniform(9, 15) / noise.std()
    seen = gaussian_filter(image, (0, blur, blur)) + noise
    return np.rint(np.clip(seen, -1024, 3071)).astype(np.int16)


def _write_nifti(
    path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing: tuple[float, float, float]
) -> None:
    """Write (slices, rows, columns): the file's axes run to left, anterior and superior."""
    import nibabel

    turned = volume[:, ::-1].transpose(2, 1, 0)
    affine = np.diag([-spacing[2], spacing[1], spacing[0], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(turned.shape) - 1) / 2)
    header = nibabel.Nifti1Header()
    header.set_data_shape(turned.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    write_nifti(header, turned, path)


def _write_prepared(
    folder: Path, name: str, image: NDArray[np.int16], label: NDArray[np.uint8], training: bool
) -> None:
    import h5py

    scaled = ((np.clip(image, -125, 275).astype(np.float32) + 125) / 400).astype(np.float32)
    eight = np.zeros(256, np.float32)
    for released, used in TO_EIGHT.items():
        eight[released] = used
    ids = eight[label]
    if not training:
        with (
            atomic_write(folder / "test_vol_h5" / f"{name}.npy.h5") as temporary,
            h5py.File(temporary, "w") as file,
        ):
            file.create_dataset("image", data=scaled, track_times=False)
            file.create_dataset("label", data=ids, track_times=False)
        return
    for k in range(len(scaled)):
        with atomic_write(folder / "train_npz" / f"{name}_slice{k:03d}.npz") as temporary:
            np.savez(temporary, image=scaled[k], label=ids[k])


def _write_lists(folder: Path, test: list[str]) -> None:
    lists = folder / "lists_Synapse"
    slices = sorted(path.stem for path in (folder / "train_npz").glob("*.npz"))
    for file, names in (("train.txt", slices), ("test_vol.txt", sorted(test))):
        with atomic_write(lists / file) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
