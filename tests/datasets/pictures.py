"""Pictures for the tests of data sets: written, damaged, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segweave.data.store import Store


def read(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path))


def write(path: Path, values: Any, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def colour(size: tuple[int, int] = (12, 16), value: int = 90) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, np.uint8)


def blob(size: tuple[int, int] = (12, 16)) -> NDArray[np.uint8]:
    mask = np.zeros(size, np.uint8)
    mask[3:9, 4:12] = 255
    return mask


def check_case(store: Store, id: str, image: Path, mask: Path, frame: int = 0) -> None:
    """The store's case holds exactly what the two files do."""
    case = store.case(id)
    pixels = read(image)
    np.testing.assert_array_equal(np.moveaxis(case.image[frame], 0, -1), pixels)
    assert case.label is not None
    np.testing.assert_array_equal(
        case.label[frame], read(mask).astype(float) > 0.5 * read(mask).max()
    )


def no_group_crosses(store: Store) -> None:
    """But in splits whose name says so."""
    for name, parts in store.splits.items():
        if name.endswith("-leaks"):
            continue
        homes: dict[str, str] = {}
        for part, ids in parts.items():
            for id in ids:
                assert homes.setdefault(store.groups[id], part) == part, name
