"""Writes a comparison of arms as a page with pictures: differences by group, and the cases that are
worst, best and most changed.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segweave.comparison import Comparison, comparison_tables, write_text
from segweave.comparison.results import ScoredRun
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError, one_line
from segweave.evaluation.folder import LABEL_MAPS
from segweave.evaluation.label_pairs import case_file
from segweave.evaluation.tables import counted
from segweave.report.figures import (
    LINES,
    as_png,
    figure_class,
    panels,
    plain_axis,
    prediction_panel,
    printable_names,
)
from segweave.report.page import Image, Page, Section, write_page
from segweave.report.run_report import as_table, target_of
from segweave.report.scored_files import ScoredFiles
from segweave.runs.run_folder import Run, RunLayout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segweave.data.store import CaseStore
    from segweave.report.figures import Panel

_MOST_CASES = 8


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison as .md, .tex, .csv or .html, by the name's ending; returns the path.

    Only the page looks beyond the evaluation folders: at the label maps and images that they name,
    for pictures; where those are gone a line reports it. Raises UsageError for another ending,
    MissingExtraError where a page is asked for without matplotlib and jinja2.
    """
    if Path(path).suffix != ".html":
        return write_text(comparison, path)
    tables = comparison_tables(comparison)
    images = [
        Image(
            as_png(
                difference_dots(
                    _dots(comparison), f"{comparison.quantity} minus that of {comparison.reference}"
                )
            ),
            "One dot per group (mean over runs), right of the line where the arm is better than "
            f"{comparison.reference}; bar: mean and 95 % interval.",
        )
    ]
    sections = [
        Section("In words", comparison.verdicts),
        Section("Differences by group", images=images),
        *(Section(t.heading, list(t.notes), [as_table(t)]) for t in tables),
        _pictures(comparison),
    ]
    facts = [
        ("reference", comparison.reference),
        ("arms", ", ".join(arm.arm for arm in comparison.arms)),
        ("protocol", comparison.protocol),
        ("cases", f"{comparison.cases} from {counted(comparison.groups, 'group')}"),
    ]
    page = Page(
        f"Arms against {comparison.reference}",
        sections,
        warning="Research software, not a medical device.",
        facts=facts,
    )
    return write_page(page, path)


def _dots(
    comparison: Comparison,
) -> dict[str, tuple[list[float], tuple[float, float | None, float | None]]]:
    return {
        arm.arm: (list(arm.by_group.values()), (arm.difference, arm.low, arm.high))
        for arm in comparison.arms
    }


def difference_dots(
    arms: Mapping[str, tuple[Sequence[float], tuple[float, float | None, float | None]]],
    quantity: str = "difference in Dice",
) -> Figure:
    """Every group's difference as a dot, mean and interval as a bar; `arms` maps arm → (values,
    (mean, low, high)), low and high None where there is none.
    """
    figure_type = figure_class()
    if not arms:
        raise UsageError("drawing differences", expected="at least one arm", found="none")
    figure = figure_type(figsize=(6.4, 0.55 * len(arms) + 1.0), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0.0, color="#888888", linewidth=1)
    for y, (values, (mean, low, high)) in enumerate(arms.values()):
        points = np.asarray(values, dtype=float)
        spread = (np.arange(len(points)) % 5 - 2) * 0.05
        axis.plot(points, y + spread, "o", color=LINES[0], alpha=0.45, markersize=4)
        if low is not None and high is not None:
            axis.plot([low, high], [y + 0.3] * 2, color="#000000", linewidth=1.6)
        axis.plot([mean], [y + 0.3], "D", color="#000000", markersize=4.5)
    axis.set_yticks(range(len(arms)), printable_names(arms), fontsize=9)
    axis.set_ylim(len(arms) - 0.4, -0.5)
    axis.set_xlabel(quantity, fontsize=9)
    plain_axis(axis)
    return figure


def notable_cases(comparison: Comparison) -> dict[str, str]:
    """Case → why it is shown, at most eight: of each arm the worst and the best, and those that
    gained and lost most against the reference.
    """
    reasons: dict[str, list[str]] = {}
    for word in ("gained most", "lost most", "worst", "best"):
        for arm in comparison.arms:
            # The smallest of these is the case in question.
            keys = {case: _key(word, *values) for case, values in arm.by_case.items()}
            case = min(keys, key=lambda case: keys[case], default=None)
            if case is None or (word.endswith("most") and keys[case] >= 0):
                continue
            if word == "best" and len({*keys.values()}) == 1:
                continue  # all cases are equal, and one is shown as the worst
            ours, theirs = arm.by_case[case]
            values = f"{arm.arm} {ours:.3f}, {comparison.reference} {theirs:.3f}"
            reasons.setdefault(case, []).append(f"{word} ({values})")
    chosen = list(reasons.items())[:_MOST_CASES]
    return {case: "; ".join(words) for case, words in chosen}


def _key(word: str, ours: float, theirs: float) -> float:
    return {
        "gained most": theirs - ours,
        "lost most": ours - theirs,
        "worst": ours,
        "best": -ours,
    }[word]


def _pictures(comparison: Comparison) -> Section:
    title = "Cases worst, best and most changed"
    rows: list[Panel] = []
    lines: list[str] = []
    target = _target(comparison)
    for case, why in notable_cases(comparison).items():
        try:
            drawn = _rows(comparison, case, target)
        except (SegweaveError, OSError) as error:
            lines.append(f"{case}: {why}. No picture: {_reason(error)}.")
            continue
        lines.append(f"{case}: {why}.")
        rows += drawn
    if not rows:
        return Section(title, lines or ["No case was scored."])
    caption = (
        "One row per case, the slice in which the rarest class is largest; below, mean Dice of "
        "that slice. Each arm is shown with its first run, the values above are means over runs."
    )
    return Section(title, lines, images=[Image(as_png(prediction_panel(rows, target)), caption)])


def _reason(error: Exception) -> str:
    return one_line(error) if isinstance(error, SegweaveError) else str(error).splitlines()[0]


def _rows(comparison: Comparison, case: str, target: TargetSpec) -> list[Panel]:
    """The row of one case, each arm by the first run that has a label map of it."""
    folders: dict[str, Path] = {}
    for name in [comparison.reference, *(arm.arm for arm in comparison.arms)]:
        scored_runs = [scored for scored in comparison.scored_runs if scored.arm == name]
        candidates = (
            folder
            for scored in scored_runs
            for folder in _label_folders(scored, comparison.protocol)
            if _holds(folder, case)
        )
        folder = next(candidates, None)
        if folder is None:
            raise InputError(f"the label maps of {name} that its evaluation names are gone")
        folders[name] = folder
    store = _store(comparison, case)
    rows = panels(store, [case], folders, target, protocol=comparison.protocol)
    return [replace(row, seen=not isinstance(store, ScoredFiles) or store.seen) for row in rows]


def _holds(folder: Path, case: str) -> bool:
    if any(folder.glob(f"{urllib.parse.quote(case, safe=' ')}.*")):
        return True
    try:
        return case_file(folder, case).is_file()
    except InputError:
        return False


def _label_folders(scored: ScoredRun, protocol: str) -> list[Path]:
    """Folders that may hold the label maps of an evaluation, the most likely first."""
    kept = scored.sources.get("predictions")
    if "run" not in scored.sources:
        return [Path(kept)] if kept is not None else []
    beside = Path(scored.folder) / LABEL_MAPS
    if beside.is_dir():
        return [beside]
    # Older evaluations of runs don't state the name; it was that of their folder.
    names = [Path(kept).name] if kept is not None else [Path(scored.folder).name, protocol]
    runs = [RunLayout(run) for run in _runs(scored)]
    held = [run.predictions(name) for name in dict.fromkeys(names) for run in runs]
    return [folder for folder in held if folder.is_dir()]


def _runs(scored: ScoredRun) -> list[Path]:
    """The run of an evaluation: around it, else where it was; none where it is gone. Older averages
    name all members there, the one that keeps the label maps first.
    """
    named = scored.sources.get("run", "")
    candidates = [Path(scored.folder).parent.parent, Path(named), Path(named.split(", ")[0])]
    return [run for run in dict.fromkeys(candidates) if named and RunLayout(run).started]


def _store(comparison: Comparison, case: str) -> CaseStore | ScoredFiles:
    """What holds the image of a case: the store of a run, else the references as images."""
    for scored in comparison.scored_runs:
        for run in _runs(scored)[:1]:
            store = Run(run).open_store()
            checksum = scored.sources.get("store")
            if store is not None and store.checksum == checksum and case in store.ids:
                return store
        if "references" in scored.sources:
            return ScoredFiles(scored.sources)
    raise InputError("the images that the evaluations name are gone")


def _target(comparison: Comparison) -> TargetSpec:
    """What the classes are, in the colours of a run's target where one still exists."""
    for run in (run for scored in comparison.scored_runs for run in _runs(scored)):
        try:
            target = TargetSpec.model_validate(Run(run).model_card["target"])
        except (SegweaveError, KeyError, ValueError):
            continue
        if (target.kind, [*target.foreground.values()]) == (comparison.kind, comparison.classes):
            return target
    return target_of(comparison.kind, comparison.classes)
