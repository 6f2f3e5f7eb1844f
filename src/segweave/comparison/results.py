"""The result of a comparison as data: its tables, pages and verdicts are made from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Result(BaseModel):
    """Base: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class MainTest(Result):
    """The test for new groups and new trainings, by `design`: `t`, the difference over its standard
    `error`, against the `critical` value at 5 % (`p` None below six groups), both ends of the 95 %
    interval. `trainings` is how many seeds or folds the error rests on, in words.
    """

    design: str
    trainings: str
    error: float
    critical: float
    t: float
    p: float | None
    low: float
    high: float


class WeightsTest(Result):
    """The test for new groups with these weights: sign-flip permutation on group
    means (`p` None below six groups), 95 % interval by `method`.
    """

    p: float | None
    low: float | None
    high: float | None
    method: str


class CaseTests(Result):
    """The tests that papers run over cases, as if those were independent (protocol published)."""

    cases: int
    t: float
    t_p: float
    wilcoxon_p: float


class Shares(Result):
    """Of the variance of one difference or one value (one group, one seed): between groups, between
    seeds and in the rest, as parts of 1.
    """

    groups: float
    seeds: float
    rest: float


class Exploratory(Result):
    """Another metric, or one class: a mean difference over the `groups` where it is defined. No
    p-value on purpose. In distances, `better` and `worse` take a failed one as the worst. `ruled`
    counts the scores that the protocol set because the class is missing on a side.
    """

    metric: str
    class_name: str
    unit: str
    definition: str = ""
    groups: int
    difference: float | None
    low: float | None = None
    high: float | None = None
    better: int = 0
    worse: int = 0
    failed: int = 0
    reference_failed: int = 0
    ruled: int = 0
    reference_ruled: int = 0


class ArmComparison(Result):
    """One arm against the reference. `p` is that of the main test or, where there is none, of the
    permutation; `low` and `high` (95 %), `low90` and `high90` likewise. `p_margin` is that of the
    two one-sided tests against the margin. `p_holm` and `p_margin_holm` are corrected over the
    arms, no interval is. `reasons` state what is missing for a p-value, or for a result about new
    trainings; `limits` what else the result does not reach beyond. `shares` are of the
    differences; where seeds are not paired there are none, but those of each arm's values.
    """

    arm: str
    mean: float
    reference_mean: float
    difference: float
    low: float | None = None
    high: float | None = None
    low90: float | None = None
    high90: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_margin: float | None = None
    p_margin_holm: float | None = None
    main: MainTest | None = None
    weights: WeightsTest
    shares: Shares | None = None
    own_shares: Shares | None = None
    reference_shares: Shares | None = None
    effect_size: float | None = None
    better: int
    worse: int
    equal: int
    detectable: float | None = None
    equivalent: bool | None = None
    verdict: str = ""
    reasons: list[str] = Field(default_factory=list)
    limits: list[str] = Field(default_factory=list)
    exploratory: list[Exploratory] = Field(default_factory=list)
    case_tests: CaseTests | None = None
    by_group: dict[str, float] = Field(default_factory=dict)
    by_case: dict[str, tuple[float, float]] = Field(default_factory=dict)


class ArmFacts(Result):
    """Facts about an arm: `checkpoint` and `part` are None where unknown. `false_alarms` and
    `by_rule` (values set by the protocol's rule) count over all runs, with the number of scores.
    """

    arm: str
    mean: float
    seeds: list[int | None]
    folds: list[int]
    runs: int
    parameters: int | None = None
    checkpoint: str | None = None
    part: str | None = None
    false_alarms: tuple[int, int] = (0, 0)
    by_rule: tuple[int, int] = (0, 0)


class ScoredRun(Result):
    """A run, the folder of its evaluation, and where its predictions came from."""

    arm: str
    seed: int | None
    fold: int | None
    folder: str
    sources: dict[str, str]


class Comparison(Result):
    """All arms against `reference`.

    Attributes:
        protocol: name of the protocol.
        title: its title.
        definition: that of the primary metric.
        metric: the primary metric.
        quantity: its short name with its unit.
        kind: kind of target.
        classes: names of the foreground classes.
        reference: label of the arm that the others are compared with.
        cases: number of cases.
        groups: number of groups.
        grouped: False where no groups were given, so that each case is one.
        margin: the difference in it that is too small to matter; None where there is none.
        margin_reason: why; empty where the margin was given to the comparison instead of being
            fixed before the trainings.
        means: over what an arm's value is a mean.
        facts: one entry per arm: mean, seeds, folds, parameters.
        arms: one entry per arm but the reference: difference, interval, p, verdict; its `by_case`
            holds (arm, reference) of each case, means over runs.
        notes: what is worth knowing of the comparison.
        exploratory_notes: the same of its other metrics.
        scored_runs: the runs, and the folders of their evaluations.
    """

    protocol: str
    title: str
    definition: str
    metric: str = "dice"
    quantity: str = "Dice"
    kind: str
    classes: list[str]
    reference: str
    cases: int
    groups: int
    grouped: bool
    margin: float | None
    margin_reason: str = ""
    means: str
    facts: list[ArmFacts]
    arms: list[ArmComparison]
    notes: list[str] = Field(default_factory=list)
    exploratory_notes: list[str] = Field(default_factory=list)
    scored_runs: list[ScoredRun] = Field(default_factory=list)

    @property
    def verdicts(self) -> list[str]:
        """One verdict per arm."""
        return [arm.verdict for arm in self.arms]
