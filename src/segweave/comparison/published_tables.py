"""Recomputes the significance tables that the source papers print (TIP 2024 Table VIII, LSTMSA
Table VI) from the Dice values that the same papers print.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats

from segweave.comparison.decisions import LEVEL, holm
from segweave.comparison.pairs import paired_t
from segweave.comparison.resampling import sign_flip_p
from segweave.evaluation.tables import Table, counted
from segweave.storage import read_json

# Dice is printed with two digits, t with four: inputs rounded by half a digit move t this far.
_ROUNDING = 0.005


class Printed(BaseModel):
    """A Dice value (in %) as a table of a paper prints it."""

    model_config = ConfigDict(extra="forbid")

    paper: str
    table: str
    dice: float


class Baseline(BaseModel):
    """A network without a module on one data set, everywhere that it is printed."""

    model_config = ConfigDict(extra="forbid")

    dataset: str
    name: str
    printed: list[Printed]


class Claim(BaseModel):
    """One line of a significance table: printed `t` and `p`, and the Dice values (in %) that
    `values_table` prints for each baseline with the module.
    """

    model_config = ConfigDict(extra="forbid")

    paper: str
    table: str
    dataset: str
    module: str
    t: float
    p: float
    values_table: str
    with_module: dict[str, float]


class Claims(BaseModel):
    """The file of printed values."""

    model_config = ConfigDict(extra="forbid")

    format: int
    papers: dict[str, str]
    baselines: list[Baseline]
    claims: list[Claim]


class Choice(BaseModel):
    """One way to choose among the printed baseline values, with what it gives: paired t over
    baselines, Wilcoxon's and the sign-flip permutation's p; `reproduces` the printed t.
    """

    model_config = ConfigDict(extra="forbid")

    baselines: dict[str, float]
    differences: list[float]
    t: float
    p: float
    rank_p: float
    permutation_p: float
    reproduces: bool


class Check(BaseModel):
    """A claim with all choices; `choice` is the one that comes nearest to the printed t, `p_holm`
    its p over all lines of the same printed table.
    """

    model_config = ConfigDict(extra="forbid")

    claim: Claim
    choices: list[Choice]
    choice: Choice
    p_holm: float


@cache
def read_claims() -> Claims:
    """The printed values."""
    file = Path(__file__).parent / "published_claims.json"
    return Claims.model_validate(read_json(file, "reading the printed values", formats=(1,)))


def check_published() -> list[Check]:
    """Every line of both significance tables, recomputed under every choice of baseline values."""
    held = read_claims()
    values = {
        (b.dataset, b.name): list(dict.fromkeys(p.dice for p in b.printed)) for b in held.baselines
    }
    checks = []
    for claim in held.claims:
        names = list(claim.with_module)
        choices = [
            _choice(claim, dict(zip(names, chosen, strict=True)))
            for chosen in itertools.product(*(values[claim.dataset, name] for name in names))
        ]
        nearest = min(choices, key=lambda choice: abs(choice.t - claim.t))
        checks.append(Check(claim=claim, choices=choices, choice=nearest, p_holm=1.0))
    for paper in held.papers:
        of_paper = {str(k): check for k, check in enumerate(checks) if check.claim.paper == paper}
        ours = holm({k: check.choice.p for k, check in of_paper.items()})
        for k, check in of_paper.items():
            check.p_holm = ours[k]
    return checks


def _choice(claim: Claim, baselines: dict[str, float]) -> Choice:
    after, before = list(claim.with_module.values()), list(baselines.values())
    t, p = paired_t(after, before)
    gaps = np.round(np.array(after) - np.array(before), 2)
    return Choice(
        baselines=baselines,
        differences=gaps.tolist(),
        t=t,
        p=p,
        rank_p=float(stats.wilcoxon(gaps, method="exact").pvalue),
        permutation_p=sign_flip_p(gaps),
        reproduces=abs(t - claim.t) <= _slack(gaps),
    )


def _slack(gaps: NDArray[np.float64]) -> float:
    """How far t may move where every printed Dice is off by half of its last digit."""
    t = _t(gaps)
    moved = [
        abs(_t(gaps + 2 * _ROUNDING * np.array(signs)) - t)
        for signs in itertools.product((-1, 1), repeat=len(gaps))
    ]
    return max(moved) + 5e-5


def _t(gaps: NDArray[np.float64]) -> float:
    return float(gaps.mean() / (gaps.std(ddof=1) / np.sqrt(len(gaps))))


def published_tables() -> list[Table]:
    """The printed significance beside ours, and what the other printed baseline values give."""
    checks = check_published()
    return [_main_table(checks), _choice_table(checks)]


def _main_table(checks: list[Check]) -> Table:
    rows = tuple(
        (
            f"{_paper(check)} {check.claim.table}, {check.claim.dataset}, {check.claim.module}",
            f"{check.claim.t:.4f}",
            f"{check.choice.t:.4f}",
            f"{check.claim.p:.4f}",
            f"{check.choice.p:.4f}" if check.choice.p >= 5e-4 else f"{check.choice.p:.6f}",
            f"{check.p_holm:.4f}" + (" *" if check.p_holm < LEVEL else ""),
            f"{check.choice.rank_p:.4f}",
            _table_names(check),
        )
        for check in checks
    )
    header = (
        "printed in, data set, module",
        "t printed",
        "t ours",
        "p printed",
        "p ours",
        "p ours, Holm",
        "p, rank test",
        "baseline values of",
    )
    notes = [
        "Student's paired t over five baselines (4 degrees of freedom), Dice with the module less "
        "Dice without it, each from one printed number.",
        *_wrong(checks),
        "Holm within each printed table, * below 5 %: "
        + "; ".join(_survivors(checks, paper) for paper in read_claims().papers)
        + ".",
        "Rank test: Wilcoxon's signed ranks, exact. Of five differences, the smallest two-sided p "
        f"that any can have is 2/32 = {2 / 32}: at n = 5 no rank test, and no permutation of "
        "signs, can fall below 5 %, whatever the module does.",
        "What the t speaks of: other baselines, if these five are a random draw of them. All five "
        "share one test set and each number is one training, so that it says nothing of other "
        "patients or other seeds.",
    ]
    return Table("Printed significance, recomputed", header, rows, tuple(notes))


def _choice_table(checks: list[Check]) -> Table:
    rows = []
    for check in checks:
        if len(check.choices) == 1:
            continue
        for choice in check.choices:
            rows.append(
                (
                    f"{_paper(check)}, {check.claim.dataset}, {check.claim.module}",
                    "; ".join(_disputed(check, choice)),
                    f"{choice.t:.4f}",
                    f"{choice.p:.4f}",
                    f"{choice.rank_p:.4f}",
                    "yes" if choice.reproduces else "no",
                )
            )
    header = (
        "paper, data set, module",
        "baseline values",
        "t",
        "p",
        "p, rank test",
        "gives the printed t",
    )
    kept = sum(
        choice.p < LEVEL for check in checks for choice in check.choices if not choice.reproduces
    )
    others = sum(not choice.reproduces for check in checks for choice in check.choices)
    notes = (
        "The papers print different Dice for one baseline in different tables; every combination "
        "is shown, the tables in brackets. Data sets without a contradiction are left out.",
        f"Of the {others} choices that do not give the printed t, {kept} "
        f"{'has' if kept == 1 else 'have'} p below 5 %.",
        *_renamed(checks),
        "LSTMSA prints no baseline values for DAEFormer; those of TIP are taken.",
    )
    return Table("What each choice of printed baseline values gives", header, tuple(rows), notes)


def _renamed(checks: list[Check]) -> Iterator[str]:
    """Values of a baseline that other tables print under the name of another: a contradiction that
    may be a wrong name.
    """
    papers = read_claims().papers
    for baseline in read_claims().baselines:
        values = {printed.dice for printed in baseline.printed}
        touched = [
            check
            for check in checks
            if check.claim.dataset == baseline.dataset and baseline.name in check.claim.with_module
        ]
        for other in read_claims().baselines:
            if other is baseline or other.dataset != baseline.dataset or len(values) == 1:
                continue
            for printed in baseline.printed:
                elsewhere = [
                    f"{papers[p.paper]} {p.table}" for p in other.printed if p.dice == printed.dice
                ]
                if elsewhere and touched:
                    yield (
                        f"{baseline.dataset}: the {printed.dice:.2f} that "
                        f"{papers[printed.paper]} {printed.table} prints for {baseline.name} is "
                        f"what {' and '.join(elsewhere)} print for {other.name}. It may be a wrong "
                        f"name; then {counted(len(touched), 'line')} of this table "
                        f"{'has' if len(touched) == 1 else 'have'} no contradiction."
                    )


def _paper(check: Check) -> str:
    return read_claims().papers[check.claim.paper]


def _printed(check: Check, name: str) -> Iterator[Printed]:
    for baseline in read_claims().baselines:
        if (baseline.dataset, baseline.name) == (check.claim.dataset, name):
            yield from baseline.printed


def _disputed(check: Check, choice: Choice) -> Iterator[str]:
    """The baselines whose printed values differ, with the value chosen and where it stands."""
    papers = read_claims().papers
    for name, dice in choice.baselines.items():
        printed = list(_printed(check, name))
        if len({p.dice for p in printed}) > 1:
            where = [f"{papers[p.paper]} {p.table}" for p in printed if p.dice == dice]
            yield f"{name} {dice:.2f} ({', '.join(where)})"


def _table_names(check: Check) -> str:
    """The tables of which one alone holds every baseline value of the choice."""
    papers = read_claims().papers
    places = [
        {(p.paper, p.table) for p in _printed(check, name) if p.dice == dice}
        for name, dice in check.choice.baselines.items()
    ]
    common = sorted(set.intersection(*places), reverse=True)
    if not common:
        common = sorted(set().union(*places), reverse=True)
        return " + ".join(f"{papers[paper]} {table}" for paper, table in common)
    return " or ".join(f"{papers[paper]} {table}" for paper, table in common)


def _wrong(checks: list[Check]) -> Iterator[str]:
    # As the papers print it, with four digits.
    exact = [c for c in checks if round(c.choice.t, 4) == round(c.claim.t, 4)]
    yield (
        f"{len(exact)} of {len(checks)} printed t are ours to the last digit, "
        f"{sum(c.choice.reproduces for c in checks)} within what rounding of the printed Dice "
        "allows."
    )
    for check in checks:
        law = float(2 * stats.t.sf(check.claim.t, len(check.claim.with_module) - 1))
        if abs(law - check.claim.p) > 6e-5:
            yield (
                f"{_paper(check)} {check.claim.table}, {check.claim.dataset}: p is printed as "
                f"{check.claim.p:.4f}; the printed t of {check.claim.t} has p = {law:.6f}."
            )


def _survivors(checks: list[Check], paper: str) -> str:
    of_paper = [check for check in checks if check.claim.paper == paper]
    kept = [check for check in of_paper if check.p_holm < LEVEL]
    names = ", ".join(f"{c.claim.dataset} {c.claim.module}" for c in kept)
    remain = f"{len(kept)} of {len(of_paper)} remain"
    table = f"{_paper(of_paper[0])} {of_paper[0].claim.table}"
    return f"{table}: {remain}" + (f" ({names})" if 0 < len(kept) < len(of_paper) else "")
