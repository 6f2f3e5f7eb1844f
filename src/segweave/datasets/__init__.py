"""Public data sets and your own folders, converted into a store."""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segweave import __version__
from segweave.data.splits import check_splits
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.data.target_codes import with_codes
from segweave.datasets.base import Item, Plan, invalid_names, inverted_note, short_of
from segweave.errors import InputError, SegweaveError
from segweave.formats.guard import check_file
from segweave.formats.pictures import exif_turn
from segweave.formats.table import PICTURES, suffix_of
from segweave.registry import build, datasets
from segweave.runtime.progress import Progress
from segweave.storage import sha256_of, sha256_of_bytes
from segweave.words import few

__all__ = ["PrepareReport", "prepare"]


@dataclass
class PrepareReport:
    """What a conversion did: counts, what was `expected` by the data set's card, what is `missing`,
    other `warnings`, how many cases an earlier, interrupted attempt had left (`resumed`).
    """

    name: str
    layout: str
    path: Path
    groups: int
    cases: int
    slices: int
    expected: dict[str, int]
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    resumed: int = 0
    seconds: float = 0.0
    checksum: str = ""
    splits: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def prepare(
    name: str,
    source: str | Path,
    out: str | Path,
    *,
    strict: bool = False,
    overwrite: bool = False,
    codes: Mapping[str, str | Mapping[str, str]] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PrepareReport:
    """Convert the data set `name` at `source` into the store `out`; returns what was found.

    `options` are those of the data set's own function (a wrong one raises UsageError with the
    nearest). What is missing of the expected counts is reported, or raises InputError if `strict`,
    and so are images that are in two parts of a split. Classes that no label holds are reported.
    Damaged files always raise InputError. An interrupted conversion continues when it is called
    again; an existing store is left alone unless `overwrite`. `codes` are coded terms of classes
    for DICOM objects (`segweave.data.target_codes.with_codes`); they go into the target of the
    store and from there into the model cards. `progress(done, total, case)` is called before each
    case and once at the end.
    """
    started = time.perf_counter()
    card = datasets.card(name)
    folder = Path(source)
    doing = f"preparing {card.title}"
    if not folder.is_dir() and not (folder.is_file() and card.source == "table"):
        raise InputError(
            doing,
            file=folder,
            expected="a folder",
            found="a file" if folder.exists() else "nothing there",
            remedy="give the folder that holds the data set",
            kind="layout",
        )
    plan: Plan = build(doing, datasets.entry(name), card.options, {"source": folder, **options})
    if errors := [*plan.errors, *invalid_names(plan.items)]:
        raise _with_check(errors[0], len(errors), name, folder, options)
    if not plan.items:
        raise InputError(
            doing, file=folder, expected="at least one labelled case", found="none", kind="missing"
        )
    missing = [*plan.missing, *(one.message for one in plan.left_out)]
    if strict and missing:
        raise _incomplete(doing, folder, missing)
    groups = plan.groups()
    # Before hours of work, what the store would refuse at the end.
    check_splits(plan.splits(groups), groups)
    target = plan.target if codes is None else with_codes(plan.target, codes)
    converter = f"segweave {__version__}, {name}, {plan.layout}"
    shares: list[float] = []
    with StoreWriter(out, name, target, converter=converter, overwrite=overwrite) as writer:
        for done, item in enumerate(plan.items):
            if progress is not None:
                progress(done, len(plan.items), item.id)
            fingerprint = _fingerprint(item, plan.options)
            if not writer.has(item.id, fingerprint):
                try:
                    case = item.read()
                except InputError as error:
                    raise _with_check(error, 1, name, folder, options) from error
                if plan.target.kind == "binary" and case.label is not None:
                    shares.append(float(np.count_nonzero(case.label == 1) / case.label.size))
                writer.add(case, fingerprint)
        if progress is not None:
            progress(len(plan.items), len(plan.items), "")
        counts = writer.counts
        missing += short_of(card.expected, counts)
        if strict and missing:
            raise _incomplete(doing, folder, missing)
        splits = plan.splits(writer.groups)
        if strict and (copies := writer.copies(splits)):
            raise InputError(
                doing,
                file=folder,
                expected="no image in two parts of a split (strict)",
                found="; ".join(copies),
                remedy="leave one of each out, give both the same group, or leave strict out",
                kind="split",
            )
        store: Store = writer.finish(
            splits,
            plan.provenance,
            grouped=plan.grouped,
            warnings=[
                *plan.warnings,
                *_turned(plan.items),
                *filter(None, [inverted_note(shares)]),
                *_absent(writer.absent, plan, counts["cases"]),
            ],
        )
        resumed = len(writer.resumed)
    return PrepareReport(
        name=name,
        layout=plan.layout,
        path=Path(out),
        **counts,
        expected=dict(card.expected),
        missing=missing,
        warnings=list(store.warnings),
        resumed=resumed,
        seconds=time.perf_counter() - started,
        checksum=store.checksum,
        splits=store.describe()["splits"],
    )


def _turned(items: list[Item]) -> list[str]:
    """A warning about pictures that are to be shown turned."""
    pictures = [path for item in items for path in item.files if suffix_of(path) in PICTURES]
    turned = [path.name for path in pictures if exif_turn(path) != 1]
    if not turned:
        return []
    return [
        f"{len(turned)} pictures have an EXIF orientation, which is not applied: {few(turned)}; if "
        "the masks were drawn on the pictures as they are shown, turn the pixels and remove the tag"
    ]


def _absent(classes: list[str], plan: Plan, cases: int) -> list[str]:
    """A warning about classes that no label holds."""
    if not classes:
        return []
    if len(classes) == len(plan.target.foreground):
        labels = "the label is" if cases == 1 else f"all {cases} labels are"
        return [f"no label holds any class: {labels} background throughout"]
    which = "the class" if len(classes) == 1 else "the classes"
    return [f"no label holds {which} {few(classes)}"]


def _with_check(
    error: SegweaveError, count: int, name: str, source: Path, options: Mapping[str, Any]
) -> SegweaveError:
    """The error that ends a conversion, with the command that lists all others of its kind."""
    if type(error) is not InputError:
        return error
    more = f"; {count - 1} more such faults are known" if count > 1 else ""
    words = ["segweave", "check", str(source), "--as", name]
    taken = inspect.signature(datasets.entry(name)).parameters
    for key, value in options.items():
        if value is None or (key in taken and value == taken[key].default):
            continue
        several = isinstance(value, Sequence) and not isinstance(value, str)
        text = ",".join(map(str, value)) if several else str(value)
        words += ["--option", f"{key}={text}"]
    remedy = f"{shlex.join(words)} lists every fault at once{more}"
    return InputError(
        error.doing,
        file=error.file,
        expected=error.expected,
        found=error.found,
        remedy="; ".join(filter(None, [error.remedy, remedy])),
        kind=error.kind,
    )


def _incomplete(doing: str, folder: Path, missing: list[str]) -> InputError:
    return InputError(
        doing,
        file=folder,
        expected="the whole data set (strict)",
        found="; ".join(missing),
        remedy="complete it, or convert what is there by leaving strict out",
        kind="missing",
    )


def _fingerprint(item: Item, options: str) -> str:
    parts = [f"{item.id}|{item.group}|{options}".encode()]
    for path in item.files:
        try:
            check_file(path, f"reading the case {item.id!r}")
            parts.append(bytes.fromhex(sha256_of(path)))
        except OSError as error:
            raise InputError(
                f"reading the case {item.id!r}",
                file=path,
                found=error.strerror or str(error),
                kind="damaged",
            ) from error
    return sha256_of_bytes(*parts)
