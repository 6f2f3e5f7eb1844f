"""A comparison as tables, Markdown and LaTeX, and as a file of any of its forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segweave.comparison.numbers import as_csv
from segweave.comparison.results import ArmComparison, Comparison
from segweave.errors import UsageError, nearest
from segweave.evaluation.tables import Table, as_markdown_text, counted
from segweave.storage import atomic_write
from segweave.words import printable_line

_NOTHING = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "<": "$<$",
    ">": "$>$",
    "√": r"$\surd$",
    "·": r"$\cdot$",
}


def comparison_tables(comparison: Comparison) -> list[Table]:
    """The primary endpoint, what is behind it, what papers would test, the exploratory rest."""
    tables = [_primary(comparison), _behind(comparison)]
    if any(arm.case_tests for arm in comparison.arms):
        tables.append(_over_cases(comparison))
    if any(arm.exploratory for arm in comparison.arms):
        tables.append(_exploratory(comparison))
    return tables


def as_markdown(comparison: Comparison) -> str:
    """Verdicts, then the tables."""
    lines = [f"# Arms against {as_markdown_text(comparison.reference)}", ""]
    lines += [f"- {as_markdown_text(verdict)}" for verdict in comparison.verdicts]
    return "\n".join([*lines, "", *(t.markdown() for t in comparison_tables(comparison))])


def as_latex(comparison: Comparison) -> str:
    """Verdicts, then the tables for LaTeX (package booktabs)."""
    verdicts = [rf"\item {_latex(printable_line(verdict))}" for verdict in comparison.verdicts]
    lines = [r"\begin{itemize}", *verdicts, r"\end{itemize}", ""]
    return "\n".join([*lines, *(latex_table(table) for table in comparison_tables(comparison))])


def write_text(comparison: Comparison, path: str | Path) -> Path:
    """Write the comparison as .md, .tex or .csv, by the name's ending. Raises UsageError for any
    other.
    """
    writers = {".md": as_markdown, ".tex": as_latex, ".csv": as_csv}
    file = Path(path)
    if file.suffix not in writers:
        raise UsageError(
            "writing a comparison",
            file=file,
            expected="a name ending in .md, .tex, .csv or .html",
            found=file.suffix or "no ending",
            remedy=nearest(file.suffix, [*writers, ".html"]) if file.suffix else None,
        )
    with atomic_write(file) as temporary:
        temporary.write_text(writers[file.suffix](comparison), encoding="utf-8")
    return file


def latex_table(table: Table) -> str:
    """One table for LaTeX, its heading as caption and its notes under it."""
    columns = "l" + "r" * (len(table.header) - 1)
    body = [" & ".join(map(_latex, row)) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.heading)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_latex, table.header)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {_latex(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _primary(comparison: Comparison) -> Table:
    sized = any(facts.parameters is not None for facts in comparison.facts)
    header = ["arm", comparison.quantity, "difference [95 % interval]", "p, Holm"]
    header += ["groups better / worse", "smallest detectable, about"]
    header += ["equivalent"] if comparison.margin is not None else []
    header += ["runs", *(["parameters"] if sized else [])]
    rows = []
    results = {result.arm: result for result in comparison.arms}
    for facts in comparison.facts:
        result = results.get(facts.arm)
        row = [facts.arm, f"{facts.mean:.4f}"]
        if result is None:
            row[0] += " (reference)"
            row += [_NOTHING] * 4 + [_NOTHING] * (comparison.margin is not None)
        else:
            row += [_interval(result.difference, result.low, result.high), _p(result.p_holm)]
            row += [f"{result.better} / {result.worse}", _about(result.detectable)]
            if comparison.margin is not None:
                row.append(_yes(result.equivalent))
        row.append(_runs(facts.seeds, facts.folds))
        row += [_NOTHING if facts.parameters is None else f"{facts.parameters:,}"] * sized
        rows.append(tuple(row))
    return Table(
        f"Primary endpoint: macro {comparison.quantity} against {comparison.reference}",
        tuple(header),
        tuple(rows),
        tuple(_primary_notes(comparison)),
    )


def _primary_notes(comparison: Comparison) -> list[str]:
    notes = [
        f"Protocol {comparison.protocol}: {comparison.title}.",
        f"{comparison.quantity}: {comparison.definition}. A group's value is the mean over its "
        f"cases of the mean over the classes that count there; {comparison.quantity} is the mean "
        f"{comparison.means}.",
        f"{counted(comparison.cases, 'case')}, {counted(comparison.groups, 'group')}.",
    ]
    tested = [arm.arm for arm in comparison.arms if arm.p is not None]
    if tested:
        single = "; each interval is that of a single comparison" if len(tested) > 1 else ""
        notes.append(f"Holm over {counted(len(tested), 'arm')}, 5 % in all{single}.")
    if any(arm.detectable is not None for arm in comparison.arms):
        notes.append(
            "Smallest detectable: about the true difference that these groups and runs would find "
            "four times in five (5 %, before Holm), from the standard error alone; with few seeds "
            "that error is a rough guess."
        )
    if comparison.margin is not None:
        notes += _margin_notes(comparison, comparison.margin)
    rules = sorted({facts.checkpoint or "unknown" for facts in comparison.facts})
    notes.append(f"Weights chosen by: {', '.join(rules)}.")
    alarms = [f"{f.arm} {f.false_alarms[0]} of {f.false_alarms[1]}" for f in comparison.facts]
    if any(facts.false_alarms[1] for facts in comparison.facts):
        notes.append(f"False alarms on absent classes (no Dice there): {'; '.join(alarms)}.")
    ruled = [f"{f.arm} {f.by_rule[0]} of {f.by_rule[1]}" for f in comparison.facts]
    if any(facts.by_rule[0] for facts in comparison.facts):
        notes.append(f"Dice set by rule (class missing on a side): {'; '.join(ruled)}.")
    return notes + comparison.notes


def _margin_notes(comparison: Comparison, margin: float) -> list[str]:
    count = sum(arm.p_margin is not None for arm in comparison.arms)
    over = f", Holm over {counted(count, 'arm')}" if count > 1 else ""
    text = f"Equivalent: two one-sided tests against ±{margin:g}, 5 %{over}."
    if comparison.margin_reason:
        return [f"{text} The margin was fixed before the trainings: {comparison.margin_reason}."]
    return [
        f"{text} No run states this margin: it was given after the scores, so that it may have "
        "been chosen by them. A grid file fixes it before (margin, margin_reason)."
    ]


def _behind(comparison: Comparison) -> Table:
    header = (
        "arm",
        "main test",
        "t (critical at 5 %)",
        "p",
        "these weights: p, permutation",
        "these weights: 95 % interval",
        "effect size",
        "variance: groups / seeds / rest",
    )
    rows = []
    for arm in comparison.arms:
        main, weights = arm.main, arm.weights
        rows.append(
            (
                arm.arm,
                main.design if main else "none, see the verdict",
                f"{main.t:.2f} ({main.critical:.2f})" if main else _NOTHING,
                _p(main.p) if main else _NOTHING,
                _p(weights.p),
                _ends(weights.low, weights.high),
                _NOTHING if arm.effect_size is None else f"{arm.effect_size:+.2f}",
                _variance(arm, comparison.reference),
            )
        )
    own = any(arm.own_shares or arm.reference_shares for arm in comparison.arms)
    methods = sorted({arm.weights.method for arm in comparison.arms if arm.weights.method})
    notes = [
        "The main test speaks of new groups and, by seeds, of new trainings on the same training "
        "set (by folds, on other ones too). Its critical value is that of Cochran and Cox, which "
        "weighs few seeds as what they are. The columns 'these weights' speak "
        "of new groups for the trained networks at hand: signs of the groups' differences flipped"
        + (f"; interval by {' and '.join(methods)}." if methods else "."),
        "Effect size: mean of the groups' differences over their sd.",
        "Variance of one difference (one group, one seed), in parts"
        + (
            f"; of one {comparison.quantity} of an arm, where seeds are not paired." if own else "."
        ),
    ]
    return Table("Behind it", header, tuple(rows), tuple(notes))


def _variance(arm: ArmComparison, reference: str) -> str:
    """The parts of the variance of the difference, or of each arm."""
    parts = [("", arm.shares), (f"{arm.arm} ", arm.own_shares)]
    parts += [(f"{reference} ", arm.reference_shares)]
    shares = [f"{of}{s.groups:.0%} / {s.seeds:.0%} / {s.rest:.0%}" for of, s in parts if s]
    return "; ".join(shares) or _NOTHING


def _over_cases(comparison: Comparison) -> Table:
    rows = tuple(
        (
            arm.arm,
            str(tests.cases),
            f"{tests.t:.4f}",
            f"{tests.t_p:.4f}",
            f"{tests.wilcoxon_p:.4f}",
        )
        for arm in comparison.arms
        if (tests := arm.case_tests)
    )
    note = (
        "As papers test. Cases of one patient are not independent and one training stands for all: "
        "without a true difference such tests find one far more often than in 5 %."
    )
    header = ("arm", "cases", "t over cases", "p", "p, Wilcoxon over cases")
    return Table("Published: tests over cases", header, rows, (note,))


def _exploratory(comparison: Comparison) -> Table:
    header = ["arm", "metric", "class", "difference [95 % interval]", "groups", "better / worse"]
    exploratory = [row for arm in comparison.arms for row in arm.exploratory]
    ruled = any(row.ruled or row.reference_ruled for row in exploratory)
    rows = tuple(
        (
            arm.arm,
            f"{row.metric} {row.unit}".strip(),
            row.class_name or "all",
            _NOTHING if row.difference is None else _interval(row.difference, row.low, row.high),
            str(row.groups),
            f"{row.better} / {row.worse}",
            f"{row.failed} ({row.reference_failed})",
            *[f"{row.ruled} ({row.reference_ruled})"] * ruled,
        )
        for arm in comparison.arms
        for row in arm.exploratory
    )
    header += ["failed (reference)"] + ["by rule (reference)"] * ruled
    return Table("Exploratory", tuple(header), rows, tuple(comparison.exploratory_notes))


def _interval(value: float, low: float | None, high: float | None) -> str:
    ends = _ends(low, high)
    return f"{value:+.4f}" + ("" if ends == _NOTHING else f" {ends}")


def _ends(low: float | None, high: float | None) -> str:
    return _NOTHING if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"


def _about(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2g}"


def _p(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _yes(value: bool | None) -> str:
    return "not tested" if value is None else "yes" if value else "not shown"


def _runs(seeds: Sequence[int | None], folds: Sequence[int]) -> str:
    numbers = [str(seed) for seed in seeds if seed is not None]
    parts = (
        [f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"]
        if numbers
        else ["one, seed unknown"]
    )
    if len(folds) > 1:
        parts.append(f"folds {', '.join(map(str, folds))}")
    return "; ".join(parts)
