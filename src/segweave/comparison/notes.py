"""The notes under the tables of a comparison."""

from __future__ import annotations

import re
from collections.abc import Collection

from segweave.comparison.arms import Arm, choice
from segweave.comparison.designs import Design
from segweave.comparison.pairs import why_left_out
from segweave.comparison.results import ArmComparison
from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.rows import Evaluation
from segweave.evaluation.tables import counted, scored_again

CONTROL = "conv"
_CHOSEN_ON = {
    "validation": "validation cases, on which choices were made",
    "training": "training cases, from which the networks learned",
    "all": "all cases, those among them from which the networks learned",
}
"""Parts of the data that are no test cases."""


def notes_of(
    arms: dict[str, Arm], reference: Arm, designs: list[Design], results: list[ArmComparison]
) -> list[str]:
    """Notes under the primary endpoint: the data behind its numbers, and what weakens them."""
    notes = list(dict.fromkeys(design.note for design in designs if design.note))
    notes += [
        f"{' and '.join(sorted(arm.names))} have equal recipes: they are one arm, {arm.name}."
        for arm in arms.values()
        if len(arm.names) > 1
    ]
    if any(design.kind == "unpaired" for design in designs):
        notes.append(
            "Seeds of some arms differ from the reference's: their variances are added, nothing is "
            "gained from pairing."
        )
    manifests = [e.manifest for arm in arms.values() for e in arm.evaluations]
    if not all(manifest.grouped for manifest in manifests):
        notes.append(
            "No groups were given for some arms: each file counts as its own group, so that p and "
            "intervals are too optimistic where a patient or video has several files."
        )
    unknown = [
        arm.name
        for arm in arms.values()
        if any(not choice(e.manifest, "checkpoint") for e in arm.evaluations)
    ]
    if unknown:
        notes.append(f"How the weights were chosen is unknown for: {', '.join(unknown)}.")
    if any(arm.known("checkpoint") == {"best-on-test"} for arm in arms.values()):
        notes.append("The weights were chosen on the test set: all scores here are too good.")
    notes += dict.fromkeys(text for m in manifests if m.prompt for text in m.remarks)
    notes += scored_again(e for arm in arms.values() for e in arm.evaluations)
    evaluations = [e for arm in arms.values() for e in arm.evaluations]
    notes += [f"These are {text}." for text in _no_test_cases(evaluations)]
    lost = len(set(reference.groups.values())) - min(len(r.by_group) for r in results)
    if lost:
        notes.append(
            f"{counted(lost, 'group')} without any of the classes {'has' if lost == 1 else 'have'} "
            f"no {reference.quantity}."
        )
    if manifests[0].per != "group":
        notes.append(
            f"The evaluations' own tables keep this protocol's means {manifests[0].means}; here "
            "every group weighs alike, as in the test, so that a value may differ from theirs."
        )
    notes += _left_out(reference, [arm for arm in arms.values() if arm is not reference])
    control = next((arm for arm in arms.values() if _is_control(arm)), None)
    if control is not None and control is not reference and len(arms) > 2:
        notes.append(
            f"A gain that {control.name} shows too comes from seeing the neighbours: --reference "
            f"{control.name} shows what a module adds to that."
        )
    return notes


def limits_of(arm: Arm, reference: Arm, design: Design) -> list[str]:
    """What the result on two arms does not reach beyond, and what makes it worthless: short enough
    to be part of the verdict's sentence.
    """
    both = (arm, reference)
    limits = []
    if design.kind in ("paired", "unpaired"):
        limits.append("new seeds on this training set")
    if any(one.known("checkpoint") == {"best-on-test"} for one in both):
        limits.append("weights chosen on the test set (all scores are too good)")
    evaluations = [e for one in both for e in one.evaluations]
    shown = [arm.name for arm in both if any(e.manifest.prompt for e in arm.evaluations)]
    if shown:
        limits.append(f"boxes taken from the reference ({', '.join(shown)})")
    limits += _no_test_cases(evaluations)
    if scored_again(evaluations):
        limits.append("test cases that had been scored before")
    if not all(e.manifest.grouped for e in evaluations):
        limits.append("groups unknown (each file counts as one)")
    return limits


def _no_test_cases(evaluations: Collection[Evaluation]) -> list[str]:
    """What the cases are, where they are no test cases. All cases of a store hold those of the
    training, unless it is another store than that of the training.
    """
    parts = set()
    for evaluation in evaluations:
        manifest = evaluation.manifest
        part = choice(manifest, "part")
        learned = ((manifest.recipe or {}).get("data") or {}).get("store")
        other = learned is not None and learned != manifest.sources.get("store")
        if part is not None and not (part == "all" and other):
            parts.add(part)
    return [_CHOSEN_ON[part] for part in sorted(parts & set(_CHOSEN_ON))]


def stated_margin(arms: Collection[Arm]) -> tuple[float | None, str]:
    """The margin that all runs of all arms state, with its reason; (None, "") where one states none
    or another.
    """
    stated = {
        (e.manifest.margin, e.manifest.margin_reason) for arm in arms for e in arm.evaluations
    }
    return stated.pop() if len(stated) == 1 else (None, "")


def exploratory_notes(arms: Collection[Arm]) -> list[str]:
    """Notes under the exploratory table; for distances, how missing classes count."""
    notes = [
        "Not tested and not corrected for being many: what stands out here is a question for a new "
        "experiment, not an answer."
    ]
    rules = []
    if any(arm.failures(metric) for arm in arms for metric in arm.distances):
        rules.append(
            "differences where all runs of both arms have one; in better / worse, groups in which "
            "a class was missed count as the worst"
        )
    if any(arm.ruled(metric) for arm in arms for metric in arm.distances):
        rules.append(
            "where a class is missing on a side, the protocol's rule sets one, which counts"
        )
    if any(_flattered(arm, metric) for arm in arms for metric in arm.distances):
        rules.append(
            "that rule gives 0, the best there is, where Dice is 0, so that an arm that misses "
            "a class looks better by its distance"
        )
    return [*notes, *([f"Distances: {'; '.join(rules)}."] if rules else [])]


def _left_out(reference: Arm, others: Collection[Arm]) -> list[str]:
    """Metrics that the exploratory part lacks, and why."""
    missing: dict[tuple[str, str], list[str]] = {}
    for arm in others:
        for metric in dict.fromkeys((*reference.units, *arm.units)):
            if metric != FALSE_ALARM and (why := why_left_out(arm, reference, metric)):
                missing.setdefault((metric, why), []).append(arm.name)
    lines = [f"{metric} of {', '.join(names)} ({why})" for (metric, why), names in missing.items()]
    return [f"Left out of what is exploratory: {'; '.join(lines)}."] if lines else []


def _is_control(arm: Arm) -> bool:
    """Whether the arm's module is the control `conv`, by its recipe. Evaluations of runs by earlier
    versions hold no recipe: there the arm's name says it (`unet+conv`, `acdc-unet-128-conv`).
    A name that another tool gave says nothing.
    """
    for evaluation in arm.evaluations:
        if (recipe := evaluation.manifest.recipe) is not None:
            return (recipe.get("context") or {}).get("name") == CONTROL
    of_runs = any("store" in evaluation.manifest.sources for evaluation in arm.evaluations)
    return of_runs and CONTROL in re.split(r"[+@-]", arm.name)


def _flattered(arm: Arm, metric: str) -> bool:
    """Whether a rule set Dice and a distance to 0 at once."""
    return any(
        items[item] == 0 and arm.scores[run].get("dice", {}).get(item) == 0
        for run, ruled in arm.by_rule.items()
        for items in [arm.scores[run][metric]]
        for item in ruled[metric]
    )
