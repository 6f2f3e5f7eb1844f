"""Checks a whole data set, one case after the other, so that memory holds one at a time."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segweave.checking.complete import short, unsplit
from segweave.checking.probe import Look, ids_in, label_file, majority, probe
from segweave.checking.report import CheckReport, Fact, Problem
from segweave.checking.survey import Survey, plain_name, readable, survey, unused
from segweave.data.store import is_store
from segweave.datasets.base import Item, inverted_note
from segweave.errors import UsageError
from segweave.formats.guard import at_most, largest_bytes
from segweave.formats.table import PICTURES, case_name, suffix_of
from segweave.registry import datasets
from segweave.runtime.progress import Progress

Range = tuple[float, float]
_SHARE_OF_MEMORY = 4
_LOOKED_AT = 8


def check(
    source: str | Path,
    name: str | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> CheckReport:
    """Look at everything in `source`, read as the data set `name` (recognised where it is None),
    and convert nothing.

    `options` are those of the data set's function. Damaged and invalid files are listed in the
    report, each with what was expected, found and what to do; none ends the check. One case is in
    memory at a time, and files that declare more than a quarter of the machine's memory are
    refused. `progress(done, total, case)` is called before each case. Raises InputError where
    nothing can be read at all, UsageError for a wrong name or option and where several data sets
    share the layout.
    """
    started = time.perf_counter()
    folder = Path(source)
    if is_store(folder):
        raise UsageError(
            "checking a data set",
            file=folder,
            expected="images and labels before their conversion",
            found="a store, which segweave prepare has checked and written",
            remedy="segweave info shows what a store holds; training checks its checksums",
        )
    with at_most(min(largest_bytes(), _memory() // _SHARE_OF_MEMORY)):
        found = survey(folder, name, options)
        report = CheckReport(folder, found.name, found.plan.layout, folders=found.folders)
        report.problems += found.problems
        report.problems += [Problem("missing", "error", found=text) for text in found.plan.missing]
        report.problems += [Problem("note", "note", found=text) for text in found.plan.warnings]
        looks: list[Look] = []
        headers: list[Problem] = []
        frames: dict[Path, str] = {}
        taken = 0
        unread: list[tuple[Item, frozenset[int]]] = []
        total = len(found.plan.items)
        for done, item in enumerate(found.plan.items):
            if progress is not None:
                progress(done, total, item.id)
            one = probe(item, found)
            report.problems += one.problems
            headers += one.headers
            frames |= one.frames
            taken += bool(one.headers) and one.look is not None
            if one.look is None:
                report.failed += 1
                unread.append((item, one.ids))
            else:
                looks.append(one.look)
        if progress is not None:
            progress(total, total, "")
        report.problems += _headers(headers, taken)
        reported = {p.file for p in report.problems if p.kind == "labels"}
        report.problems += [p for p in _strange_ids(found, unread) if p.file not in reported]
        report.problems += _doubles(found, looks)
        report.problems += _same_frames(frames)
        report.problems += _unusual(found, looks)
        report.problems += _outside(found, looks)
        report.problems += _inverted(found, looks)
        report.problems += short(found, looks)
        report.problems += unsplit(found, looks)
        report.problems += _unused(found)
    report.cases = len(looks)
    report.facts = _facts(found, looks, report)
    report.problems = list(dict.fromkeys(report.problems))
    report.seconds = time.perf_counter() - started
    return report


def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8 << 30


def _headers(headers: list[Problem], taken: int) -> list[Problem]:
    """Headers that contradict themselves: one note where the data set's reader handles them."""
    if not headers or not taken:
        return headers
    text = f"{len(headers)} headers contradict themselves (affine, pixdim, qform), as is known"
    return [Problem("note", "note", found=f"{text} of this data set", file=headers[0].file)]


def _strange_ids(found: Survey, unread: list[tuple[Item, frozenset[int]]]) -> list[Problem]:
    """Ids of cases that could not be read (so that their label was not checked against the classes)
    which neither the classes nor other label files have.
    """
    if not any(ids for _, ids in unread):
        return []
    lost = {item.id for item, _ in unread}
    known = set(range(len(found.plan.target.names))) | {found.plan.target.ignored}
    for item in [item for item in found.plan.items if item.id not in lost][:_LOOKED_AT]:
        known |= ids_in(label_file(item), found.plan.target)
    return [
        Problem(
            "labels",
            "warning",
            found=f"ids {sorted(ids - known)}",
            expected="ids of the classes, or of other label files",
            case=item.id,
            file=path,
        )
        for item, ids in unread
        if ids - known and (path := label_file(item)) is not None
    ]


def _doubles(found: Survey, looks: list[Look]) -> list[Problem]:
    problems = []
    for id, count in Counter(item.id for item in found.plan.items).items():
        if count > 1:
            problems.append(Problem("same-id", "error", found=f"{count} cases {id!r}", case=id))
    first: dict[str, Look] = {}
    for look in looks:
        other = first.setdefault(look.content, look)
        # Images of one value everywhere are not compared.
        if other is not look and look.low < look.high:
            problems.append(
                Problem(
                    "same-content",
                    "error",
                    found=f"the pixels of {other.id}",
                    expected="other pixels",
                    case=look.id,
                    file=look.files[0] if look.files else None,
                )
            )
    return problems


def _same_frames(frames: dict[Path, str]) -> list[Problem]:
    """Frames of videos that show the pixels of another one."""
    problems = []
    first: dict[str, Path] = {}
    for file, pixels in frames.items():
        other = first.setdefault(pixels, file) if pixels else file
        if other is not file:
            problems.append(
                Problem(
                    "same-content",
                    "error",
                    found=f"the pixels of {other.name}",
                    expected="other pixels",
                    case=case_name(file),
                    file=file,
                )
            )
    return problems


def _unusual(found: Survey, looks: list[Look]) -> list[Problem]:
    """Cases unlike all others, and class ids that hardly any case has."""
    problems = []
    traits: tuple[tuple[str, Callable[[Look], Any]], ...] = (
        ("channels", lambda look: look.channels),
        ("kind of stack", lambda look: look.stack),
        ("direction of the slices", lambda look: look.orientation),
        ("spacing known", lambda look: look.spacing is not None),
        ("numbered objects", lambda look: look.numbered),
    )
    for what, trait in traits:
        if not looks:
            break
        usual = majority([trait(look) for look in looks])
        problems += [
            Problem(
                "unusual",
                "warning",
                found=f"{what}: {trait(look) if trait(look) != '' else 'unknown'}",
                expected=f"{usual if usual != '' else 'unknown'} as in most cases",
                case=look.id,
                file=look.files[0] if look.files else None,
            )
            for look in looks
            if trait(look) != usual
        ]
    problems += [
        Problem(
            "unusual",
            "warning",
            found=f"slices of {look.size[0]} × {look.size[1]} pixels",
            expected="slices wider than a pixel (the last axis of an array is its columns)",
            case=look.id,
            file=look.files[0] if look.files else None,
        )
        for look in looks
        if min(look.size) == 1
    ]
    card = datasets.cards().get(found.name)
    if card is None or not card.generic or len(looks) < 4:
        return problems
    # Classes were found in the masks themselves, so that a stray value would count as a class.
    counts = Counter(id for look in looks for id in look.ids)
    known = len(found.plan.target.names)
    for id, count in counts.items():
        if count <= max(1, len(looks) // 20) and 0 < id < known:
            where = next(look for look in looks if id in look.ids)
            problems.append(
                Problem(
                    "labels",
                    "error",
                    found=f"class id {id} in only {count} of {len(looks)} cases "
                    f"({where.ids[id]} pixels)",
                    expected=f"ids {sorted(i for i in counts if counts[i] > count)}",
                    case=where.id,
                    file=where.files[-1] if where.files else None,
                    remedy="correct the mask, or name all classes (classes) if it is one",
                )
            )
    return problems


def _inverted(found: Survey, looks: list[Look]) -> list[Problem]:
    """Masks that are foreground nearly everywhere, in most cases."""
    if found.plan.target.kind != "binary" or not found.labelled:
        return []
    shares = [look.ids.get(1, 0) / max(1, sum(look.ids.values())) for look in looks]
    text = inverted_note(shares)
    remedy = "look at a mask beside its image; if black is the foreground, turn the masks round"
    return [Problem("full-label", "warning", found=text, remedy=remedy)] if text else []


def _outside(found: Survey, looks: list[Look]) -> list[Problem]:
    """Cases out of the ranges that the published data set has."""
    card = datasets.cards().get(found.name)
    traits: dict[str, tuple[str, Callable[[Look], list[float]]]] = {
        "slices": ("slices", lambda look: [look.slices]),
        "size": ("rows and columns", lambda look: list(look.size)),
        "step": ("mm between slices", lambda look: list((look.spacing or ())[:1])),
        "pixel": ("mm per pixel", lambda look: list((look.spacing or ())[1:])),
    }
    problems = []
    for name, limits in (card.ranges if card is not None else {}).items():
        what, values_of = traits[name]
        for look in looks:
            low, high = limits[0] * 0.99, limits[1] * 1.01
            outside = [value for value in values_of(look) if not low <= value <= high]
            if outside:
                problems.append(
                    Problem(
                        "range",
                        "note",
                        found=f"{outside[0]:.4g} {what}",
                        expected=_span(limits),
                        case=look.id,
                    )
                )
    return problems


def _unused(found: Survey) -> list[Problem]:
    problems = []
    read = [path for item in found.plan.items for path in item.files]
    plain = {(path.parent, plain_name(path)): path for path in read}
    # An image may be beside its mask: the file of exactly the same name is the twin.
    same = {(path.parent, case_name(path)): path for path in read}
    noted = {problem.file for problem in found.problems}
    for path in unused(found):
        twin = same.get((path.parent, case_name(path)))
        twin = twin or plain.get((path.parent, plain_name(path)))
        if path in noted:
            continue
        if twin is not None and suffix_of(path):
            problems.append(
                Problem(
                    "same-id",
                    "error",
                    found=f"a second file of {twin.name}, which is the one that is read",
                    case=plain_name(path),
                    file=path,
                )
            )
        elif suffix_of(path) in PICTURES and not readable(path):
            problems.append(
                Problem(
                    "damaged",
                    "error",
                    found="a file that can't be read, and belongs to no case",
                    case=plain_name(path),
                    file=path,
                )
            )
        else:
            severity = "warning" if suffix_of(path) else "note"
            problems.append(
                Problem("unused", severity, found="a file of no case", file=path)  # type: ignore[arg-type]
            )
    return problems


def _facts(found: Survey, looks: list[Look], report: CheckReport) -> list[Fact]:
    card = datasets.cards().get(found.name)
    counts = dict(card.expected) if card is not None else {}
    ranges = card.ranges if card is not None else {}

    def wanted(what: str) -> str:
        return f"{counts[what]:,}" if what in counts else ""

    def ranged(name: str) -> str:
        return _span(ranges[name]) if name in ranges else ""

    failed = f", {report.failed} more can't be read" if report.failed else ""
    facts = [
        Fact("cases", f"{len(looks):,}{failed}", wanted("cases")),
        Fact("groups", f"{len({look.group for look in looks}):,}", wanted("groups")),
        Fact("slices", f"{sum(look.slices for look in looks):,}", wanted("slices")),
    ]
    if not looks:
        return facts
    sizes = Counter(look.size for look in looks)
    sides = [side for look in looks for side in look.size]
    usual = " × ".join(map(str, sizes.most_common(1)[0][0]))
    shown = usual if len(sizes) == 1 else f"{min(sides)} to {max(sides)}, most often {usual}"
    facts += [
        Fact("slices per case", _span(_range([look.slices for look in looks])), ranged("slices")),
        Fact("rows and columns", shown, ranged("size")),
        Fact("channels", ", ".join(str(n) for n in sorted({look.channels for look in looks}))),
        Fact("pixels", ", ".join(sorted({look.dtype for look in looks}))),
        Fact("values", _span(_range([v for look in looks for v in (look.low, look.high)]))),
    ]
    steps = [look.spacing for look in looks if look.spacing is not None]
    lost = len(looks) - len(steps)
    unknown = f", unknown in {lost} cases" if steps and lost else ""
    facts += [
        Fact(
            "mm between slices",
            _span(_range([s[0] for s in steps])) + unknown if steps else "unknown",
            ranged("step"),
        ),
        Fact(
            "mm per pixel",
            _span(_range([v for s in steps for v in s[1:]])) + unknown if steps else "unknown",
            ranged("pixel"),
        ),
    ]
    planes = sorted({look.orientation for look in looks if look.orientation})
    if planes:
        facts.append(Fact("slices are", ", ".join(planes)))
    if found.labelled:
        facts.append(_labels(found, looks))
    return facts


def _labels(found: Survey, looks: list[Look]) -> Fact:
    target = found.plan.target
    cases = Counter(id for look in looks for id, count in look.ids.items() if count)
    names = dict(enumerate(target.names)) if target.kind != "binary" else target.foreground
    shown = [
        f"{id} {names.get(id, '?')} ({cases[id]})" for id in sorted(cases) if id or id in names
    ]
    known = ", ".join(f"{id} {name}" for id, name in sorted(names.items()))
    return Fact("labels (in cases)", ", ".join(shown) or "none", known)


def _range(values: list[Any]) -> Range:
    return min(values), max(values)


def _span(limits: Range) -> str:
    low, high = (f"{value:.4g}" for value in limits)
    return low if low == high else f"{low} to {high}"
