"""Disposable copies of a store's cases on a network's grid, memory-mapped, so that training reads
without resizing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.inputs import (
    network_label,
    network_reference,
    network_slice,
    normalise,
    placement,
)
from segweave.data.specs import InputSpec
from segweave.data.store import CaseStore
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.runtime.progress import Progress
from segweave.storage import (
    atomic_folder,
    can_write,
    canonical_json,
    disk_errors,
    locked,
    read_json,
    sha256_of,
    sha256_of_text,
    write_json,
)

# Part of every key: raise it when `segweave.data.inputs` computes something else.
VERSION = 2
CHECKSUMS = "checksums.json"
LOCK = ".lock"


@dataclass(frozen=True)
class ResizedCase:
    """One case on the network's grid.

    Attributes:
        id: the case.
        image: (slices, channels, height, width), normalised.
        label: uint8 (slices, height, width), or (slices, classes, height, width); of an image,
            as `image`.
        outside: the value that each channel is padded with.
        gaps: slice numbers before which the stack is interrupted.
    """

    id: str
    image: NDArray[Any]
    label: NDArray[Any]
    outside: NDArray[np.float32]
    gaps: tuple[int, ...]


class Resized:
    """Cases of a store on the network's grid, one folder per case, made where they are not there.

    The name of a folder is the hash of the spec (without `slices` and `edge`, which change no
    slice), the case's content and `dtype`, so that a stale copy is never read. A damaged one is
    made again. The folders may be deleted at any time. Where two processes want the same copy, one
    makes it and the other waits.

    Args:
        store: the store.
        spec: how the network is fed.
        ids: the cases; None for all.
        folder: where the copies are kept; None for `NAME.cache` beside the store.
        instead: where copies are made that are not beside the store and can't be written there.
        dtype: "float32" holds exactly what prediction computes, "float16" needs half the space.
        progress: called after each case.

    Raises InputError for a case without a label or with bad pixels, SegweaveError where the cache
    can't be written.
    """

    def __init__(
        self,
        store: CaseStore,
        spec: InputSpec,
        ids: Sequence[str] | None = None,
        *,
        folder: str | Path | None = None,
        instead: str | Path | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        progress: Progress | None = None,
    ) -> None:
        self.store = store
        self.spec = spec
        self.target = store.target
        self.ids = list(store.ids if ids is None else ids)
        if not self.ids:
            raise UsageError("reading training cases", expected="at least one case", found="none")
        self._folder = None if folder is None else Path(folder)
        self._instead = None if instead is None else Path(instead)
        self._can_write: dict[Path, bool] = {}
        self.dtype = dtype
        self._cases: dict[str, ResizedCase] = {}
        for done, id in enumerate(self.ids, start=1):
            self._cases[id] = self._open_or_build(id)
            if progress is not None:
                progress(done, len(self.ids), id)

    def __getitem__(self, id: str) -> ResizedCase:
        return self._cases[id]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the network is fed: the tile, or the largest case on the network's
        grid (all are equal where the spec gives a size).
        """
        if self.spec.fit == "tile" and self.spec.size is not None:
            return self.spec.size
        shapes = [case.image.shape[-2:] for case in self._cases.values()]
        return max(s[0] for s in shapes), max(s[1] for s in shapes)

    def key(self, id: str) -> str:
        """The name of the folder that holds the copy of a case."""
        spec = self.spec.model_dump(mode="json", exclude={"slices", "edge"})
        content = self.store.entry(id).content
        return sha256_of_text(canonical_json([VERSION, spec, content, self.dtype]))[:32]

    def path_of(self, id: str) -> Path:
        """The folder that holds the copy of a case."""
        folder = self.store.cache_folder(id) if self._folder is None else self._folder
        return folder / self.key(id)

    def _writable(self, path: Path) -> Path:
        """Where a copy that belongs to `path` can be written."""
        folder = path.parent
        if self._instead is None:
            return path
        if folder not in self._can_write:
            self._can_write[folder] = can_write(folder)
        return path if self._can_write[folder] else self._instead / path.name

    def _open_or_build(self, id: str) -> ResizedCase:
        path = self.path_of(id)
        copy = self._open(path, id)
        if copy is not None:
            return copy
        path = self._writable(path)
        # Several trainings may start at once: one makes the copy, and the others wait for it.
        with locked(path.parent / LOCK, "writing resized copies", wait=True):
            copy = self._open(path, id)
            if copy is None:
                with (
                    disk_errors("writing resized copies", path.parent),
                    atomic_folder(path) as temporary,
                ):
                    self._build(id, temporary)
                copy = self._open(path, id)
        if copy is None:
            raise SegweaveError("reading resized copies", file=path, found="a damaged copy")
        return copy

    def _build(self, id: str, folder: Path) -> None:
        case = self.store.case(id)
        if case.label is None:
            raise InputError(
                f"reading the case {id!r} for training", expected="a label", found="none"
            )
        numbers = normalise(case, self.spec)
        canvas = placement(case.size, case.spacing, self.spec).canvas
        shape = (case.slices, len(self.spec.channels), *canvas)
        image = np.empty(shape, self.dtype)
        is_image = self.target.kind == "image"
        label = np.empty(
            (case.slices, *case.label.shape[1:-2], *canvas), self.dtype if is_image else np.uint8
        )
        for index in range(case.slices):
            with np.errstate(over="ignore"):  # reported below
                image[index] = network_slice(case, index, self.spec, numbers)
                label[index] = (
                    network_reference(case, index, self.spec, numbers)
                    if is_image
                    else network_label(case, index, self.spec)
                )
        if not (np.isfinite(image).all() and np.isfinite(label).all()):
            raise SegweaveError(
                f"making a float16 copy of the case {id!r}",
                found="values beyond its range",
                remedy='use dtype "float32"',
            )
        arrays = {
            "label": label,
            "outside": np.asarray(numbers.outside, np.float32),
            "image": image,
        }
        for name, array in arrays.items():
            with (folder / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        write_json(folder / CHECKSUMS, {name: sha256_of(folder / f"{name}.npy") for name in arrays})

    def _open(self, path: Path, id: str) -> ResizedCase | None:
        """The copy in `path`, or None where there is none or it is not whole."""
        entry = self.store.entry(id)
        try:
            checksums = read_json(path / CHECKSUMS, "reading resized copies")
            if any(sha256_of(path / f"{name}.npy") != digest for name, digest in checksums.items()):
                return None
            image = np.load(path / "image.npy", mmap_mode="r", allow_pickle=False)
            label = np.load(path / "label.npy", mmap_mode="r", allow_pickle=False)
            outside = np.load(path / "outside.npy", allow_pickle=False)
        except (InputError, OSError, ValueError, EOFError):
            return None
        whole = (
            image.dtype == self.dtype
            and image.shape[:2] == (entry.slices, len(self.spec.channels))
            and label.shape[0] == entry.slices
            and label.shape[-2:] == image.shape[-2:]
            and outside.shape == (len(self.spec.channels),)
        )
        return ResizedCase(id, image, label, outside, entry.gaps) if whole else None
