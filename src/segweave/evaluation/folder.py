"""The evaluation folder: manifest.json with checksums of the references, cases.csv in long form,
summary.json. It is complete by itself.
"""

from __future__ import annotations

import csv
import io
import math
import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy
import scipy
from numpy.typing import NDArray
from pydantic import ValidationError

from segweave import __version__
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError, from_validation
from segweave.evaluation.protocols import Protocol, get_protocol, list_protocols
from segweave.evaluation.rows import (
    FORMAT,
    Evaluation,
    Manifest,
    MetricEntry,
    Row,
)
from segweave.evaluation.scores import Score
from segweave.evaluation.summary import summarise
from segweave.metrics.compute import Status
from segweave.registry import MetricCard
from segweave.registry import metrics as registry
from segweave.storage import (
    atomic_folder,
    read_json,
    sha256_of,
    sha256_of_bytes,
    sha256_of_text,
    write_json,
)
from segweave.words import cell_text, text_cell

COLUMNS = (
    "case",
    "slice",
    "group",
    "class",
    "metric",
    "value",
    "unit",
    "status",
    "arm",
    "seed",
    "fold",
)
FILES = ("manifest.json", "cases.csv", "summary.json")
CALIBRATION = "calibration.json"
"""How far the probabilities can be trusted, where that was asked for."""
LABEL_MAPS = "predictions"
"""The folder of the label maps that were scored, where the evaluation is not inside its run."""


def check_free(folder: str | Path, *, force: bool = False) -> None:
    """Raise UsageError where `folder` holds something that must not be written over: anything
    without `force`; with it, anything but an evaluation.
    """
    path = Path(folder)
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError("writing an evaluation", file=path, expected="a folder", found="a file")
    names = sorted(entry.name for entry in path.iterdir())
    foreign = [name for name in names if name not in (*FILES, CALIBRATION, LABEL_MAPS)]
    if foreign or (names and not force):
        raise UsageError(
            "writing an evaluation",
            file=path,
            expected="an empty or a new folder",
            found=", ".join((foreign or names)[:5]),
            remedy="choose another folder" + ("" if foreign else ", or write over it (--force)"),
        )


def new_manifest(
    protocol: str | Protocol, target: TargetSpec, metrics: Sequence[str] = (), **fields: Any
) -> Manifest:
    """The manifest of an evaluation that is about to be written, which fills in its counts.

    Args:
        protocol: a protocol or its name.
        target: the classes.
        metrics: names of the metrics that are computed beside the protocol's.
        fields: any other fields of `Manifest`.
    """
    rules = get_protocol(protocol, target=target)
    extra = [name for name in dict.fromkeys(metrics) if name not in rules.definitions]
    cards = {name: rules.card(name) for name in rules.definitions}
    cards |= {name: registry.card(name) for name in extra}
    # What another card computes keeps the short name under which the protocol prints it.
    units = {name: target.unit if c.unit == "image" else c.unit for name, c in cards.items()}
    entries = {
        name: metric_entry(card).model_copy(
            update={"label": registry.card(name).heading, "unit": units[name]}
        )
        for name, card in cards.items()
    }
    return Manifest(
        protocol=rules.name,
        title=rules.title,
        means=rules.means,
        definitions={**rules.definitions, **{name: _definition(cards[name]) for name in extra}},
        metrics=entries,
        classes=list(target.foreground.values()),
        kind=target.kind,
        primary=rules.primary,
        per=rules.per,
        columns=list(dict.fromkeys((*rules.columns, *metrics))),
        versions={
            f"plug-in {Path(file).name}": digest
            for file, digest in registry.plugin_hashes.items()
            if extra
        },
        **fields,
    )


def _definition(card: MetricCard) -> str:
    """How a metric that the protocol does not list is defined."""
    options = ", ".join(f"{name} {value}" for name, value in card.options.items())
    classes = "" if card.reads == "probabilities" else ", where the class is in the reference"
    return f"{card.title}{f' ({options})' if options else ''}{classes}"


class References:
    """Checksums of true labels, slice by slice, so that a video in one file and in one file per
    frame have the same.
    """

    def __init__(self) -> None:
        self._slices: dict[str, dict[int, str]] = {}

    def add(self, case: str, label: NDArray[Any], first: int = 0) -> None:
        """Add the slices of a label map (slices, ...); `first` is the index of the first one."""
        digests = self._slices.setdefault(case, {})
        of_image = label.ndim == 4 and label.dtype != numpy.uint8  # see `Case.label`
        dtype = numpy.float32 if of_image else numpy.uint8
        for index, image in enumerate(numpy.asarray(label, dtype), start=first):
            content = f"{image.shape}".encode() + image.tobytes()
            digests[index] = sha256_of_bytes(content)

    def checksums(self) -> dict[str, str]:
        """Case → checksum."""
        return {case: _joined(slices) for case, slices in sorted(self._slices.items())}


def _joined(slices: Mapping[int, str]) -> str:
    text = " ".join(f"{index}:{digest}" for index, digest in sorted(slices.items()))
    return sha256_of_text(text)


def write_evaluation(
    folder: str | Path,
    rows: Sequence[Row],
    manifest: Manifest,
    *,
    label_maps: Path | None = None,
    calibration: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Evaluation:
    """Write an evaluation folder in one piece: a crash leaves the old one or the new one.

    Args:
        folder: where; see `check_free`.
        rows: the scores.
        manifest: what describes them (`new_manifest`); its counts are filled in here.
        label_maps: a folder on the same disk with the label maps that were scored, which becomes
            the folder's `predictions`; None where they are kept elsewhere.
        calibration: what becomes calibration.json; None for none.
        force: write over an evaluation.

    Raises UsageError where the folder holds something else, InputError where a score comes twice.
    """
    path = Path(folder)
    check_free(path, force=force)
    rows = at_best_threshold(rows)
    full = _counted(_with_cards(manifest, rows), rows)
    with atomic_folder(path) as new:
        _write_rows(new / FILES[1], rows)
        full.cases_sha256 = sha256_of(new / FILES[1])
        evaluation = Evaluation(path, full, tuple(rows))
        arms = [arm.model_dump() for arm in summarise([evaluation])]
        write_json(new / FILES[2], {"format": FORMAT, "arms": arms}, indent=1)
        write_json(new / FILES[0], full.model_dump(), indent=1)
        if calibration is not None:
            write_json(new / CALIBRATION, dict(calibration), indent=1)
        if label_maps is not None:
            label_maps.rename(new / LABEL_MAPS)
    return evaluation


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read an evaluation folder. Raises InputError, naming file and line, where something is
    missing, cut off, changed by hand, or written by a newer version.
    """
    path = Path(folder)
    doing = "reading an evaluation"
    for name in FILES[:2]:
        if not (path / name).is_file():
            raise InputError(
                doing,
                file=path,
                expected=f"a folder with {FILES[0]} and {FILES[1]}",
                found=f"no {name}" if path.is_dir() else "no such folder",
                remedy="make one with segweave evaluate or segweave score",
            )
    file = path / "manifest.json"
    content = read_json(file, doing, formats=(FORMAT,), expected="a manifest")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise from_validation(error, doing, model=Manifest, file=file) from None
    file = path / "cases.csv"
    block = file.read_bytes()
    if sha256_of_bytes(block) != manifest.cases_sha256:
        raise InputError(
            doing,
            file=file,
            expected="the file that its manifest describes",
            found="another content (cut off or changed by hand)",
            remedy="evaluate again",
        )
    try:
        rows = tuple(_read_rows(file, block.decode("utf-8")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            doing, file=file, expected="a CSV file in UTF-8", found=str(error)
        ) from error
    return Evaluation(path, _with_cards(_in_todays_order(manifest), rows), rows)


def _in_todays_order(manifest: Manifest) -> Manifest:
    """The manifest with the order of means of its protocol: means are computed of the rows, and
    earlier versions took those of `clean` over cases, then classes.
    """
    protocol = list_protocols().get(manifest.protocol)
    if protocol is None or protocol.per != "group" or manifest.per != "case":
        return manifest
    return manifest.model_copy(update={"per": protocol.per, "means": protocol.means})


def _with_cards(manifest: Manifest, rows: Sequence[Row]) -> Manifest:
    """The manifest with an entry for every metric: earlier versions wrote none, and no columns of
    distances.
    """
    lacking = {row.score.metric: row.score for row in rows}
    for name in manifest.metrics:
        lacking.pop(name, None)
    if not lacking:
        return manifest
    cards = registry.cards()
    entries = {
        name: metric_entry(cards[name]) if name in cards else _entry_without_card(score)
        for name, score in sorted(lacking.items())
    }
    protocol = list_protocols().get(manifest.protocol)
    columns = protocol.columns if protocol is not None and not manifest.metrics else ()
    return manifest.model_copy(
        update={
            "metrics": {**manifest.metrics, **entries},
            "columns": list(dict.fromkeys((*manifest.columns, *columns))),
        }
    )


def _entry_without_card(score: Score) -> MetricEntry:
    unit = "mm" if score.unit == "px" else score.unit
    better: Literal["higher", "lower"] = "lower" if unit == "mm" else "higher"
    return MetricEntry(title=score.metric, label=score.metric, unit=unit, better=better)


def _counted(manifest: Manifest, rows: Sequence[Row]) -> Manifest:
    units: dict[str, set[str]] = {}
    for row in rows:
        units.setdefault(row.score.metric, set()).add(row.score.unit)
    return manifest.model_copy(
        update={
            "units": {metric: sorted(names) for metric, names in sorted(units.items())},
            "arms": sorted({row.arm for row in rows}),
            "seeds": sorted({row.seed for row in rows if row.seed is not None}),
            "folds": sorted({row.fold for row in rows if row.fold is not None}),
            "cases": len({row.case for row in rows}),
            "groups": len({row.group for row in rows}),
            "rows": len(rows),
            "versions": {"segweave": __version__, **versions(), **manifest.versions},
        }
    )


def _write_rows(file: Path, rows: Iterable[Row]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        for row in rows:
            score = row.score
            # Python's csv quotes only what its own line end is made of, but reads \r as one too.
            has_return = "\r" in row.case + row.group + score.class_name + row.arm
            (quoted if has_return else writer).writerow(
                (
                    text_cell(row.case),
                    "" if score.slice is None else score.slice,
                    text_cell(row.group),
                    text_cell(score.class_name),
                    score.metric,
                    "" if score.value is None else repr(float(score.value)),
                    score.unit,
                    score.status,
                    text_cell(row.arm),
                    "" if row.seed is None else row.seed,
                    "" if row.fold is None else row.fold,
                )
            )


def _read_rows(file: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if tuple(header) != COLUMNS:
        raise InputError(
            "reading an evaluation",
            file=file,
            expected=",".join(COLUMNS),
            found=",".join(header) or "an empty file",
        )
    for cells in reader:
        try:
            case, index, group, name, metric, value, unit, status, arm, seed, fold = cells
            case, group, name, arm = map(cell_text, (case, group, name, arm))
            statuses = {name: name for name in get_args(Status)}
            if status not in statuses:
                raise ValueError(f"status {status!r}")
            number = float(value) if value else None
            if (number is None) != (status == "failed") or not math.isfinite(number or 0):
                raise ValueError(f"value {value!r} with status {status!r}")
            score = Score(
                int(index) if index else None, name, metric, number, unit, statuses[status]
            )
            yield Row(
                case, group, score, arm, int(seed) if seed else None, int(fold) if fold else None
            )
        except ValueError as error:
            raise InputError(
                f"reading an evaluation, line {reader.line_num}: {error}",
                file=file,
                expected=",".join(COLUMNS),
                found=",".join(cells),
            ) from error


def metric_entry(card: MetricCard) -> MetricEntry:
    """What a manifest keeps of a metric's card."""
    better: Literal["higher", "lower"] = "lower" if card.better == "lower" else "higher"
    return MetricEntry(title=card.title, label=card.heading, unit=card.unit, better=better)


def at_best_threshold(rows: Sequence[Row]) -> list[Row]:
    """Rows whose score holds a curve → the same with its value at the threshold at which the mean
    over all images of that arm, seed and fold is largest; other rows as they are.

    So the mean of the values is the largest of the means, as in the released polyp evaluation, and
    each image keeps its value.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.score.curve is not None:
            key = (row.arm, row.seed, row.fold, row.score.class_name, row.score.metric)
            groups[key].append(index)
    chosen = list(rows)
    for indices in groups.values():
        curves = numpy.stack([numpy.asarray(rows[i].score.curve) for i in indices])
        best = int(curves.mean(axis=0).argmax())
        for i, curve in zip(indices, curves, strict=True):
            score = replace(rows[i].score, value=float(curve[best]), curve=None)
            chosen[i] = replace(rows[i], score=score)
    return chosen


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute the scores."""
    return {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }
