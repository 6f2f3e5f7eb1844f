"""Tables of evaluations, arms as rows, as Markdown or for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.rows import Evaluation, MetricEntry, Part, Summary
from segweave.evaluation.summary import by_unit, summarise
from segweave.words import printable_line

if TYPE_CHECKING:
    from rich.console import RenderableType

_NOTHING = "–"
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


@dataclass(frozen=True)
class Table:
    """One table: `heading` above it, `notes` below it. Control characters of names are escaped."""

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        rows = tuple(tuple(map(printable_line, row)) for row in self.rows)
        object.__setattr__(self, "heading", printable_line(self.heading))
        object.__setattr__(self, "header", tuple(map(printable_line, self.header)))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "notes", tuple(map(printable_line, self.notes)))

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"### {as_markdown_text(self.heading)}", ""] if self.heading else []
        lines.append("| " + " | ".join(map(_cell, self.header)) + " |")
        lines.append("|" + "|".join([" --- "] + [" ---: "] * (len(self.header) - 1)) + "|")
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {as_markdown_text(note)}" for note in self.notes)]
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
    """One row per arm: the primary metric (Dice of classes, over classes) with its spread, and of
    each class, the other metrics that the protocol or the caller chose, distances in each unit,
    false alarms, seeds, parameters. mm and px never share a column.

    Args:
        evaluations: folders of one protocol and the same classes; those of one arm are joined.
        heading: what is printed above the table.
        classes: whether the primary metric of each class is shown.

    Raises what `summarise` raises.
    """
    arms = summarise(evaluations)
    names = list(dict.fromkeys(name for arm in arms for name in arm.classes))
    cards = {name: card for arm in arms for name, card in arm.metrics.items()}
    columns = list(dict.fromkeys(name for arm in arms for name in arm.columns))
    primary = arms[0].primary
    columns = [name for name in columns if name in cards and name not in (primary, FALSE_ALARM)]
    means = [name for name in columns if not by_unit(cards[name])]
    distances = _unit_columns(arms, [name for name in columns if name not in means])
    show_parameters = any(arm.parameters is not None for arm in arms)
    quantity = quantity_of(primary, cards)
    header = ["arm", f"{quantity}, mean ± sd [95 % interval]"]
    shown = names if classes and len(names) > 1 else []
    header += [f"{quantity} {name}" for name in shown]
    header += [_with_unit(cards[name]) for name in means]
    header += [f"{cards[m].label} {unit}, median / mean (failed)" for m, unit in distances]
    alarms = any(arm.macro.false_alarms for arm in arms)
    header += ["false alarms"] * alarms + ["seeds"] + ["parameters"] * show_parameters
    rows = []
    for arm in arms:
        row = [arm.arm or "prediction", _with_spread(arm.macro, primary)]
        row += [_mean(arm.classes.get(name), primary) for name in shown]
        row += [_mean(arm.macro, metric) for metric in means]
        row += [_distance(arm.macro, metric, unit) for metric, unit in distances]
        row += [_alarms(arm.macro)] * alarms
        row += [", ".join(map(str, arm.seeds)) or _NOTHING]
        row += [_NOTHING if arm.parameters is None else f"{arm.parameters:,}"] * show_parameters
        rows.append(tuple(row))
    notes = (*_notes(arms, columns), *scored_again(evaluations))
    return Table(heading, tuple(header), tuple(rows), notes)


def _unit_columns(arms: Sequence[Summary], metrics: Sequence[str]) -> list[tuple[str, str]]:
    """(metric, unit) of every length or size that some arm has."""
    return [
        (metric, unit)
        for metric in metrics
        for unit in ("mm", "ml", "px")
        if any(unit in arm.macro.distances.get(metric, {}) for arm in arms)
    ]


def _with_unit(card: MetricEntry) -> str:
    return f"{card.label} {card.unit}" if card.unit else card.label


def quantity_of(metric: str, cards: Mapping[str, MetricEntry]) -> str:
    """The short name of a metric with its unit: "Dice", "PSNR dB"."""
    # Evaluations by version 0.1 hold no cards; they have Dice.
    return _with_unit(cards[metric]) if metric in cards else metric.capitalize()


def _with_spread(part: Part, metric: str) -> str:
    value = part.overlaps.get(metric)
    if value is None:
        return _NOTHING
    text = f"{value.mean:.4f}"
    if value.sd is not None:
        text += f" ± {value.sd:.4f}"
    if value.low is not None and value.high is not None:
        text += f" [{value.low:.4f}, {value.high:.4f}]"
    return text


def _mean(part: Part | None, metric: str) -> str:
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


def _notes(arms: Sequence[Summary], columns: Sequence[str]) -> list[str]:
    first = arms[0]
    notes = [f"Protocol {first.protocol}: {first.title}. Means {first.means}."]
    definitions = {name: text for arm in arms for name, text in arm.definitions.items()}
    cards = {name: card for arm in arms for name, card in arm.metrics.items()}
    for metric in (first.primary, *columns):
        if metric in definitions and metric in cards:
            card = cards[metric]
            notes.append(f"{card.label}: {definitions[metric]} ({card.better} is better).")
    counts = {_counts(arm) for arm in arms}
    for arm in arms if len(counts) > 1 else [first]:
        name = f"{arm.arm}: " if len(counts) > 1 else ""
        notes.append(f"{name}{_counts(arm)}.")
    if len({tuple(arm.case_names) for arm in arms}) > 1:
        notes.append("The arms were scored on different cases: their rows can't be compared.")
    methods = sorted(
        {
            arm.macro.overlaps[arm.primary].method
            for arm in arms
            if arm.primary in arm.macro.overlaps
        }
    )
    methods = [method for method in methods if method]
    if methods:
        shares = [
            arm.macro.overlaps["dice"]
            for arm in arms
            if arm.primary == "dice" and "dice" in arm.macro.overlaps
        ]
        cut = (
            ", cut off at 0 and 1"
            if any(d.sd and (d.low == 0 or d.high == 1) for d in shares)
            else ""
        )
        notes.append(
            f"± sd over groups; 95 % interval by {', '.join(methods)}{cut}, for these weights."
        )
    if not all(arm.grouped for arm in arms):
        notes.append(
            "No groups were given: each file counts as its own group, so that intervals are too "
            "narrow where a patient or video has several files."
        )
    notes += dict.fromkeys(text for arm in arms for text in arm.remarks)
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


def counted(number: int, noun: str) -> str:
    """The number with its noun, which takes an s unless there is one: 1 group, 2 groups."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_markdown_text(text: str) -> str:
    """A text on one line of Markdown: names in it make no tags and no control characters."""
    return _TAG.sub("&lt;", printable_line(text))


def _cell(text: str) -> str:
    return as_markdown_text(text).replace("|", "\\|")


def scored_again(evaluations: Iterable[Evaluation]) -> list[str]:
    """A note where test cases had been scored more than once under the protocol, else nothing."""
    notes = []
    for evaluation in evaluations:
        manifest = evaluation.manifest
        times = sum(manifest.tested.values())
        if times > 1:
            arm = ", ".join(name or "prediction" for name in manifest.arms)
            seeds = "".join(f", seed {seed}" for seed in manifest.seeds)
            folds = "".join(f", fold {fold}" for fold in manifest.folds if fold)
            names = [f"{name} {count}×" for name, count in manifest.tested.items()]
            notes.append(f"{arm}{seeds}{folds}: {times} times ({', '.join(names)})")
    if not notes:
        return []
    return [
        f"Test cases had been scored more than once under this protocol: {'; '.join(notes)}. What "
        "was chosen after the first time was chosen on test cases."
    ]
