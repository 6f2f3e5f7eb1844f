"""Tables of evaluations, arms as rows, as Markdown or for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segweave.evaluation.rows import Evaluation
from segweave.evaluation.summary import Part, Summary, summarise
from segweave.evaluation.words import scored_again
from segweave.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

_NAMES = {"hd95": "HD95", "asd": "ASD", "object-hd": "object HD"}
_NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """One table: `heading` above it, `notes` below it."""

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"### {self.heading}", ""] if self.heading else []
        lines.append("| " + " | ".join(map(_cell, self.header)) + " |")
        lines.append("|" + "|".join([" --- "] + [" ---: "] * (len(self.header) - 1)) + "|")
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def rich(self) -> RenderableType:
        """The table for a rich console."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(title=Text(self.heading) if self.heading else None, title_justify="left")
        for k, name in enumerate(self.header):
            drawn.add_column(Text(name), justify="right" if k else "left", overflow="fold")
        for row in self.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        return Group(drawn, *(Text(f"- {note}", style="dim") for note in self.notes))


def summary_table(
    evaluations: Sequence[Evaluation], *, heading: str = "", classes: bool = True
) -> Table:
    """One row an arm: macro Dice with its spread, Dice of each class (`classes`), HD95 and ASD in
    each unit, false alarms, seeds, parameters. mm and px never share a column. Raises what
    `summarise` raises.
    """
    arms = summarise(evaluations)
    names = list(dict.fromkeys(name for arm in arms for name in arm.classes))
    columns = _columns(arms)
    known = any(arm.parameters is not None for arm in arms)
    header = ["arm", "Dice, mean ± sd [95 % interval]"]
    shown = names if classes and len(names) > 1 else []
    header += [f"Dice {name}" for name in shown]
    header += arms[0].columns
    header += [_distance_title(metric, unit) for metric, unit in columns]
    alarms = any(arm.macro.false_alarms for arm in arms)
    header += ["false alarms"] * alarms + ["seeds"] + ["parameters"] * known
    rows = []
    for arm in arms:
        row = [arm.arm or "prediction", _dice(arm.macro)]
        row += [_mean(arm.classes.get(name)) for name in shown]
        row += [_mean(arm.macro, metric) for metric in arms[0].columns]
        row += [_distance(arm.macro, metric, unit) for metric, unit in columns]
        row += [_alarms(arm.macro)] * alarms
        row += [", ".join(map(str, arm.seeds)) or _NOTHING]
        row += [_NOTHING if arm.parameters is None else f"{arm.parameters:,}"] * known
        rows.append(tuple(row))
    return Table(heading, tuple(header), tuple(rows), (*_notes(arms), *scored_again(evaluations)))


def class_table(evaluations: Sequence[Evaluation], *, heading: str = "") -> Table:
    """One row an arm and class, with the numbers of cases that count."""
    arms = summarise(evaluations)
    columns = _columns(arms)
    alarms = any(arm.macro.false_alarms for arm in arms)
    header = ["arm", "class", "Dice, mean ± sd [95 % interval]", "cases", *arms[0].columns]
    header += [_distance_title(metric, unit) for metric, unit in columns]
    header += ["false alarms"] * alarms
    rows = []
    for arm in arms:
        for name, part in arm.classes.items():
            cases = part.overlaps["dice"].cases if "dice" in part.overlaps else 0
            row = [arm.arm or "prediction", name, _dice(part), str(cases)]
            row += [_mean(part, metric) for metric in arms[0].columns]
            row += [_distance(part, metric, unit) for metric, unit in columns]
            row += [_alarms(part)] * alarms
            rows.append(tuple(row))
    return Table(heading, tuple(header), tuple(rows), (*_notes(arms), *scored_again(evaluations)))


def _columns(arms: Sequence[Summary]) -> list[tuple[str, str]]:
    return [
        (metric, unit)
        for metric in _NAMES
        for unit in ("mm", "px")
        if any(unit in arm.macro.distances.get(metric, {}) for arm in arms)
    ]


def _distance_title(metric: str, unit: str) -> str:
    return f"{_NAMES[metric]} {unit}, median / mean (failed)"


def _dice(part: Part) -> str:
    value = part.overlaps.get("dice")
    if value is None:
        return _NOTHING
    text = f"{value.mean:.4f}"
    if value.sd is not None:
        text += f" ± {value.sd:.4f}"
    if value.low is not None and value.high is not None:
        text += f" [{value.low:.4f}, {value.high:.4f}]"
    return text


def _mean(part: Part | None, metric: str = "dice") -> str:
    value = part.overlaps.get(metric) if part is not None else None
    return _NOTHING if value is None else f"{value.mean:.4f}"


def _distance(part: Part, metric: str, unit: str) -> str:
    value = part.distances.get(metric, {}).get(unit)
    if value is None:
        return _NOTHING
    if value.median is None or value.mean is None:
        return f"{_NOTHING} ({value.failed} of {value.asked})"
    return f"{value.median:.2f} / {value.mean:.2f} ({value.failed} of {value.asked})"


def _alarms(part: Part) -> str:
    return (
        "; ".join(
            f"{alarm.raised} of {alarm.asked}"
            + (f", {_amount(alarm.amount)} {alarm.unit}" if alarm.raised else "")
            for alarm in part.false_alarms.values()
        )
        or "0 of 0"
    )


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _notes(arms: Sequence[Summary]) -> list[str]:
    first = arms[0]
    notes = [f"Protocol {first.protocol}: {first.title}. Means {first.means}."]
    names = {"dice": "Dice", **{metric: metric for metric in first.columns}, **_NAMES}
    for metric, name in names.items():
        if metric in first.definitions:
            notes.append(f"{name}: {first.definitions[metric]}.")
    counts = {_counts(arm) for arm in arms}
    for arm in arms if len(counts) > 1 else [first]:
        who = f"{arm.arm}: " if len(counts) > 1 else ""
        notes.append(f"{who}{_counts(arm)}.")
    if len({tuple(arm.case_names) for arm in arms}) > 1:
        notes.append("The arms were scored on different cases: their rows can't be compared.")
    methods = sorted({arm.macro.overlaps["dice"].method for arm in arms if arm.macro.overlaps})
    methods = [method for method in methods if method]
    if methods:
        notes.append(f"± sd over groups; 95 % interval by {', '.join(methods)}, for these weights.")
    if not all(arm.grouped for arm in arms):
        notes.append(
            "No groups were given: each file counts as its own group, so that intervals are too "
            "narrow where a patient or video has several files."
        )
    ruled = [f"{arm.arm or 'prediction'} {arm.macro.by_rule}" for arm in arms if arm.macro.by_rule]
    if ruled:
        notes.append(f"Cases and classes scored by rule (missing on a side): {', '.join(ruled)}.")
    return notes


def _counts(arm: Summary) -> str:
    """What was scored, in numbers."""
    pieces = (
        (arm.volumes, "volume"),
        (arm.frames, "frame"),
        (arm.images - arm.volumes - arm.frames, "image"),
    )
    scored = [
        counted(number, noun) + (" in 3D" if noun == "volume" else "")
        for number, noun in pieces
        if number
    ]
    return f"{counted(arm.cases, 'case')}, {counted(arm.groups, 'group')}; scored: " + ", ".join(
        scored
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
