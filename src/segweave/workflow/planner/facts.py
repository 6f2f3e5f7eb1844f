"""What a plan has to know of a store: kinds, sizes, spacing, class shares, read from its cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from segweave.data.case import Case
from segweave.data.splits import choose_parts
from segweave.data.store import CaseStore
from segweave.errors import InputError, UsageError

LOOKED_AT = 40
"""Cases whose pixels are read, evenly spread over the training cases."""
_OBLIQUE = 0.966  # cosine of 15 degrees
_HOUNSFIELD = -500  # no other modality has values below


@dataclass(frozen=True)
class StoreFacts:
    """What decisions are made from.

    Attributes:
        name: of the store.
        stack: what the slices of most cases are: space, time or single.
        kind: of the target: exclusive, binary or overlapping.
        classes: names of the foreground classes.
        channels: of an image.
        colour: whether the images are colour pictures (three channels that differ).
        split: the split that is trained on.
        other_splits: further splits that are no folds.
        training: cases to train on.
        validation: cases to validate on.
        slices: slices of all training cases.
        validation_slices: slices of all validation cases.
        size: median (height, width) in pixels.
        largest: largest (height, width).
        one_shape: whether all images have nearly the same ratio of height and width.
        spacing: median (slice, row, column) in mm, None where it is not known.
        depth: median slices per case.
        oblique: whether slices run obliquely through the body; None where that is not known.
        shares: share of all pixels of each foreground class, in percent.
        hounsfield: (low, high, mean, sd) of foreground pixels where the values look like those of
            CT: 0.5 and 99.5 percentile, mean, standard deviation. None elsewhere.
        looked_at: number of cases whose pixels were read.
    """

    name: str
    stack: str
    kind: str
    classes: tuple[str, ...]
    channels: int
    colour: bool
    split: str
    other_splits: tuple[str, ...]
    training: int
    validation: int
    slices: int
    validation_slices: int
    size: tuple[int, int]
    largest: tuple[int, int]
    one_shape: bool
    spacing: tuple[float, float, float] | None
    depth: int
    oblique: bool | None
    shares: dict[str, float]
    hounsfield: tuple[float, float, float, float] | None
    looked_at: int

    @property
    def volumes(self) -> bool:
        """Whether the slices are those of volumes."""
        return self.stack == "space"

    @property
    def rarest(self) -> tuple[str, float]:
        """The class with the smallest share, and that share in percent."""
        name = min(self.shares, key=lambda one: self.shares[one])
        return name, self.shares[name]

    def rows(self) -> dict[str, Any]:
        """Names and values, for people to read."""
        kind = {"space": "volumes", "time": "videos", "single": "pictures"}[self.stack]
        colour = "colour" if self.colour else f"{self.channels} channel(s), no colours"
        spacing = self.spacing
        if spacing is not None:
            steps = f"{spacing[0]:.4g} mm between slices, " if self.volumes else ""
            shown = f"{steps}pixels of {spacing[1]:.4g} × {spacing[2]:.4g} mm"
        else:
            shown = "not known"
        return {
            "store": self.name,
            "images": f"{kind}, {colour}",
            "cases": f"{self.training} to train on, {self.validation} to validate on "
            f"(split {self.split})",
            "slices": f"{self.slices} to train on, {self.validation_slices} to validate on, "
            f"{self.depth} per case",
            "size": f"{self.size[0]} × {self.size[1]} (median), at most {self.largest[0]} × "
            f"{self.largest[1]}",
            "spacing": shown,
            "target": f"{self.kind}: {', '.join(self.classes)}",
            "share of pixels": ", ".join(f"{n} {s:.3g} %" for n, s in self.shares.items()),
            "pixels read of": f"{self.looked_at} training cases",
        }


def choose_split(store: CaseStore, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """The split to plan for, and the others that are no folds: the first that has training and
    validation cases, else the first with training cases.

    Raises UsageError where the store has none.
    """
    plain = [name for name in store.splits if not name.startswith("fold-")]
    names = [wanted] if wanted is not None else plain or list(store.splits)
    doing = f"planning a training on {store.name}"
    usable = [name for name in names if store.splits.get(name, {}).get("train")]
    if wanted is not None or not usable:
        # Raises where the name is wrong or nothing can be trained on.
        parts = {"training": "train", "validation": None, "test": None}
        choose_parts(store.splits, store.groups, wanted, parts, doing)
    if not usable:
        raise UsageError(doing, expected="a split with a part `train`", found=", ".join(names))
    both = [name for name in usable if store.splits[name].get("valid")]
    chosen = (both or usable)[0]
    return chosen, tuple(name for name in plain if name != chosen)


def read_facts(store: CaseStore, split: str | None = None) -> StoreFacts:
    """Read what a plan needs, from the manifest and the pixels of some training cases; the same
    for the same store. Raises UsageError without training cases, InputError without labels.
    """
    chosen, others = choose_split(store, split)
    parts = store.splits[chosen]
    training = list(parts["train"])
    unlabelled = [id for id in training if not store.entry(id).labelled]
    if unlabelled:
        raise InputError(
            f"planning a training on {store.name}",
            expected="training cases with labels",
            found=f"{len(unlabelled)} of {len(training)} without one, such as {unlabelled[0]}",
            remedy="prepare the data set with all of its masks, or leave these cases out",
        )
    validation = [id for id in parts.get("valid", []) if store.entry(id).labelled]
    entries = [store.entry(id) for id in training]
    looks = _Looks(store)
    for id in _spread(training, LOOKED_AT):
        looks.add(store.case(id))
    sizes = [entry.size for entry in entries]
    ratios = [height / width for height, width in sizes]
    channels = Counter(entry.channels for entry in entries).most_common(1)[0][0]
    return StoreFacts(
        name=store.name,
        stack=looks.stacks.most_common(1)[0][0],
        kind=store.target.kind,
        classes=tuple(store.target.foreground.values()),
        channels=channels,
        colour=channels == 3 and looks.colour,
        split=chosen,
        other_splits=others,
        training=len(training),
        validation=len(validation),
        slices=sum(entry.slices for entry in entries),
        validation_slices=sum(store.entry(id).slices for id in validation),
        size=(int(median(s[0] for s in sizes)), int(median(s[1] for s in sizes))),
        largest=(max(s[0] for s in sizes), max(s[1] for s in sizes)),
        one_shape=max(ratios) <= 1.05 * min(ratios),
        spacing=looks.spacing,
        depth=int(median(entry.slices for entry in entries)),
        oblique=looks.oblique,
        shares=looks.shares,
        hounsfield=looks.hounsfield,
        looked_at=looks.cases,
    )


def _spread(ids: Sequence[str], most: int) -> list[str]:
    """At most so many of the ids, evenly spread."""
    count = min(most, len(ids))
    return [ids[number * len(ids) // count] for number in range(count)]


class _Looks:
    """What the pixels of some cases are like, a case at a time."""

    def __init__(self, store: CaseStore) -> None:
        self.target = store.target
        self.cases = 0
        self.stacks: Counter[str] = Counter()
        self.colour = False
        self._spacings: list[tuple[float, float, float]] = []
        self._oblique: list[bool] = []
        self._counts = dict.fromkeys(self.target.foreground, 0)
        self._pixels = 0
        self._values: list[np.ndarray[Any, Any]] = []
        self._low = np.inf

    def add(self, case: Case) -> None:
        """Read the pixels of a case."""
        self.cases += 1
        self.stacks[case.stack] += 1
        if case.spacing is not None:
            self._spacings.append(case.spacing)
        if case.affine is not None:
            normal = np.abs(case.affine[:3, 0]) / np.linalg.norm(case.affine[:3, 0])
            self._oblique.append(bool(normal.max() < _OBLIQUE))
        label = np.asarray(case.label)
        classes = label.shape[1] if label.ndim == 4 else 0
        self._pixels += label.size // max(classes, 1)
        inside = np.zeros((label.shape[0], *label.shape[-2:]), bool)
        for number in self._counts:
            held = label[:, number] != 0 if classes else label == number
            self._counts[number] += int(held.sum())
            inside |= held
        image = np.asarray(case.image)
        self._low = min(self._low, float(image.min()))
        if image.shape[1] == 3 and not self.colour:
            self.colour = bool((image[:, 0] != image[:, 1]).any())
        if image.shape[1] == 1 and self._low < _HOUNSFIELD:
            values = image[:, 0][inside]
            self._values.append(values[:: max(1, len(values) // 20000)].astype(np.float64))

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        if not self._spacings:
            return None
        slices, rows, columns = (median(one) for one in zip(*self._spacings, strict=True))
        return float(slices), float(rows), float(columns)

    @property
    def oblique(self) -> bool | None:
        return 2 * sum(self._oblique) > len(self._oblique) if self._oblique else None

    @property
    def shares(self) -> dict[str, float]:
        names = self.target.foreground
        return {names[n]: 100 * count / self._pixels for n, count in self._counts.items()}

    @property
    def hounsfield(self) -> tuple[float, float, float, float] | None:
        found = [values for values in self._values if len(values)]
        if not found:
            return None
        values = np.concatenate(found)
        low, high = np.percentile(values, (0.5, 99.5))
        clipped = values.clip(low, high)
        if not low < high:
            return None
        numbers = (low, high, clipped.mean(), max(float(clipped.std()), 1e-3))
        a, b, c, d = (round(float(number), 1) for number in numbers)
        return (a, b, c, max(d, 0.1)) if a < b else None
