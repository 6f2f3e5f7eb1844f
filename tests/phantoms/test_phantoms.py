from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segweave.datasets.published_splits import load_split
from segweave.errors import UsageError
from segweave.phantoms.blobs import write_blobs
from segweave.phantoms.cardiac import HARD_SHARE, write_cardiac
from segweave.phantoms.cardiac import _draw_heart as draw_heart


@pytest.fixture(scope="session")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cardiac(tmp_path_factory.mktemp("hearts") / "h", patients=5, size=(96, 88))


def _label(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(nibabel.load(path).dataobj).T


def test_the_layout_is_the_raw_release(hearts: Path) -> None:
    patients = sorted(path.name for path in hearts.iterdir())
    assert len(patients) == 5
    for name in patients:
        facts = dict(
            line.split(": ") for line in (hearts / name / "Info.cfg").read_text().splitlines()
        )
        assert set(facts) == {"ED", "ES", "Group", "Height", "NbFrame", "Weight"}
        for phase in ("ED", "ES"):
            image = nibabel.load(hearts / name / f"{name}_frame{int(facts[phase]):02d}.nii.gz")
            label = nibabel.load(hearts / name / f"{name}_frame{int(facts[phase]):02d}_gt.nii.gz")
            assert image.shape == label.shape
            assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 0)
            np.testing.assert_array_equal(image.affine, np.diag([-1, -1, 1, 1]))
            row, column, slice_ = image.header["pixdim"][1:4]
            assert row == column < slice_ == 10
            assert image.get_data_dtype() == np.int16
    diagnoses = {
        line
        for name in patients
        for line in (hearts / name / "Info.cfg").read_text().splitlines()
        if line.startswith("Group")
    }
    assert len(diagnoses) == 5


def test_hearts_are_hearts(hearts: Path) -> None:
    empty = 0
    for patient in sorted(hearts.iterdir()):
        diastole, systole = (_label(p) for p in sorted(patient.glob("*_gt.nii.gz")))
        for label in (diastole, systole):
            assert set(np.unique(label)) == {0, 1, 2, 3}
            empty += int((label.reshape(len(label), -1).max(axis=1) == 0).sum())
            # The cavity is held by the ring: nothing but muscle touches it within a slice.
            for plane in label:
                around = ndimage.binary_dilation(plane == 3) & (plane != 3)
                assert (plane[around] == 2).all()
                for one in (2, 3):
                    assert ndimage.label(plane == one, np.ones((3, 3)))[1] <= 1
        assert (systole == 3).sum() < 0.95 * (diastole == 3).sum()
        image = np.asarray(
            nibabel.load(sorted(patient.glob("*_frame01.nii.gz"))[0]).dataobj
        ).T.astype(float)
        middle = len(image) // 2 - 1
        blood = image[middle][diastole[middle] == 3].mean()
        assert blood > 1.3 * image[middle][diastole[middle] == 2].mean()
    assert empty >= 5


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    small = {"patients": 2, "size": (40, 36), "slices": 4}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_cardiac(tmp_path / name, seed=seed, **small)  # type: ignore[arg-type]
        write_blobs(tmp_path / name, images=2, seed=seed, size=(16, 20))

    def content(name: str) -> list[bytes]:
        return [p.read_bytes() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()]

    assert content("a") == content("b")
    assert content("a") != content("c")


@pytest.mark.parametrize(("count", "parts"), [(3, (1, 1, 1)), (12, (9, 1, 2)), (100, (70, 10, 20))])
def test_names_fall_into_every_part_of_the_split(count: int, parts: tuple[int, ...]) -> None:
    from segweave.phantoms.cardiac import _names

    names = _names(count)
    split = load_split("acdc").parts
    assert len(set(names)) == count
    assert tuple(len(set(names) & set(split[part])) for part in split) == parts


def test_a_few_are_hard() -> None:
    stream = np.random.default_rng(0)
    hard = [bool(draw_heart(stream, "NOR").hard) for _ in range(2000)]
    assert np.mean(hard) == pytest.approx(HARD_SHARE, abs=0.02)


def test_blobs(tmp_path: Path) -> None:
    write_blobs(tmp_path, images=6, size=(48, 64))
    images = sorted((tmp_path / "images").iterdir())
    masks = sorted((tmp_path / "masks").iterdir())
    assert [p.stem + "_segmentation" for p in images] == [p.stem for p in masks]
    for image_path, mask_path in zip(images, masks, strict=True):
        image, mask = (np.asarray(Image.open(p)) for p in (image_path, mask_path))
        assert image.shape == (48, 64, 3)
        assert image.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        assert 0.01 < (mask > 0).mean() < 0.6
        assert image[mask > 0].mean() < image[mask == 0].mean()
        assert image.std(axis=(0, 1)).min() > 3


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"patients": 101}, {"size": (8, 8)}])
def test_impossible_hearts(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        write_cardiac(tmp_path / "x", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        write_blobs(tmp_path / "x", images=0)
