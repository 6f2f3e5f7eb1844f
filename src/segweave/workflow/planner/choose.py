"""Chooses the most ambitious candidate that the memory holds and the time allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from segweave.errors import UsageError
from segweave.workflow.planner.candidates import (
    PRETRAINED,
    Candidate,
    Count,
    batches_below,
    count,
    ladder,
    memory_of,
)
from segweave.workflow.planner.decisions import (
    SECONDS_AROUND,
    SHARE_OF_TIME,
    Decision,
    Length,
    batch_for,
    draft,
    enough,
    length_decisions,
    planned_length,
)
from segweave.workflow.planner.facts import StoreFacts
from segweave.workflow.planner.machine import Machine
from segweave.workflow.planner.speed import Speed

SHARE_OF_MEMORY = 0.6
MOST_MEASURED = 6
_WORTH_IT = 1.2  # times as fast, before half precision is taken on a CPU
_IDLE = 0.75
"""The power of its work that a candidate's time grows with, at least."""
_DOING = "planning a training"

Measure = Callable[[Sequence[Decision]], Speed]
"""The decisions of a candidate, without its length → its speed."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what was measured on the way.

    Attributes:
        candidate: what will be trained.
        speed: its measured speed.
        length: how long it is trained.
        decisions: all values with their reasons.
        measured: (title, seconds per step, epochs that would fit) of each measured candidate.
    """

    candidate: Candidate
    speed: Speed
    length: Length
    decisions: list[Decision]
    measured: list[tuple[str, float, int]]


@dataclass
class _Chooser:
    facts: StoreFacts
    machine: Machine
    hours: float
    stores: list[str]
    weights: str | None
    measure: Measure
    spent: Callable[[], float]
    classes: int

    def __post_init__(self) -> None:
        self.measured: list[tuple[str, float, int]] = []
        batch, self.batch_reason = batch_for(self.facts, self.machine)
        self.rungs = ladder(self.facts, pretrained=self.weights is not None, batch=batch)
        self.largest = self.rungs[0]

    def count(self, candidate: Candidate) -> Count:
        return count(candidate, 3 if self.facts.colour else self.facts.channels, self.classes)

    def fitting(self, candidate: Candidate) -> Candidate | None:
        """The candidate with the largest batch that the memory holds."""
        for batch in batches_below(candidate.batch):
            smaller = replace(candidate, batch=batch)
            if memory_of(smaller, self.count(smaller)) <= SHARE_OF_MEMORY * self.machine.memory:
                return smaller
        return None

    def decide(self, candidate: Candidate, size_reason: str = "tried") -> list[Decision]:
        needed = memory_of(candidate, self.count(candidate)) / 2**30
        reason = self.batch_reason
        if candidate.batch < self.largest.batch:
            free = self.machine.memory / 2**30
            reason = f"memory: {needed:.2g} GiB of {free:.2g} GiB free"
        return draft(
            self.facts,
            self.machine,
            candidate,
            stores=self.stores,
            weights=self.weights,
            batch_reason=reason,
            size_reason=size_reason,
        )

    def length(self, candidate: Candidate, speed: Speed) -> Length:
        return planned_length(
            self.facts,
            speed,
            self.hours - self.spent() / 3600,
            batch=candidate.batch,
            pretrained=candidate.network == PRETRAINED,
        )

    def try_one(self, candidate: Candidate) -> tuple[Candidate, Speed]:
        """Measure a candidate, with smaller batches where the memory does not hold it."""
        try:
            speed = self.measure(self.decide(candidate))
            full = self.machine.gpu and speed.peak > SHARE_OF_MEMORY * self.machine.memory
        except MemoryError:
            if candidate.batch == 1:
                raise
            full = True
        if full and candidate.batch > 1:
            return self.try_one(replace(candidate, batch=candidate.batch // 2))
        epochs = self.length(candidate, speed).epochs
        precision = " in bf16" if self.machine.bf16 else ""
        self.measured.append((candidate.title + precision, speed.step, epochs))
        return candidate, speed

    def sees_enough(self, candidate: Candidate, speed: Speed) -> bool:
        pretrained = candidate.network == PRETRAINED
        seen = self.length(candidate, speed).epochs * self.facts.slices
        return seen >= enough(self.facts, pretrained=pretrained)


def choose(
    facts: StoreFacts,
    machine: Machine,
    hours: float,
    *,
    classes: int,
    stores: list[str],
    weights: str | None,
    measure: Measure,
    may_use_bf16: bool = False,
    spent: Callable[[], float] = lambda: 0.0,
) -> Choice:
    """Measure the least ambitious candidate, guess the others from their work, measure those that
    may fit, from the most ambitious down, and take the first that sees enough samples in time.

    Args:
        facts: of the store.
        machine: that will train.
        hours: for the whole training.
        classes: channels of the logits.
        stores: paths of the stores.
        weights: what `network.pretrained` will be, for colour pictures; None without weights.
        measure: measures a candidate.
        may_use_bf16: whether half precision is to be measured on a CPU too.
        spent: seconds of the time that are gone.

    Raises UsageError where not one epoch fits, with the hours that do, or where memory is missing.
    """
    chooser = _Chooser(facts, machine, hours, stores, weights, measure, spent, classes)
    held = [one for one in map(chooser.fitting, chooser.rungs) if one is not None]
    if not held:
        least = chooser.rungs[-1]
        needed = memory_of(replace(least, batch=1), chooser.count(least)) / 2**20
        raise UsageError(
            _DOING,
            expected=f"{needed / SHARE_OF_MEMORY:.0f} MiB of free memory for {least.title}",
            found=f"{machine.memory / 2**20:.0f} MiB",
            remedy="close other programs, or take another machine",
        )
    least, speed = chooser.try_one(held[-1])
    if may_use_bf16 and not machine.bf16:
        chooser.machine = replace(machine, bf16=True)
        _, half = chooser.try_one(least)
        if half.step * _WORTH_IT <= speed.step:
            speed = half
        else:
            chooser.machine = machine
    chosen = least
    least_work = chooser.count(least).work * least.batch
    least_speed, seen_per_work = speed, 0.0
    for candidate in held[:-1]:
        if len(chooser.measured) == MOST_MEASURED:
            break
        work = chooser.count(candidate).work * candidate.batch
        # Guessed low: small images leave idle time that larger ones do not have, and a candidate
        # is never cheaper per work than a larger one that was measured.
        guess = max((work / least_work) ** _IDLE, seen_per_work * work / least_speed.step)
        if not chooser.sees_enough(candidate, least_speed.scaled(guess)):
            continue
        fitted, tried = chooser.try_one(candidate)
        if chooser.sees_enough(fitted, tried):
            chosen, speed = fitted, tried
            break
        seen_per_work = tried.step / work
    length = chooser.length(chosen, speed)
    if length.epochs < 1:
        raise _too_little(facts, chosen, speed, length, hours)
    decisions = chooser.decide(chosen, _size_reason(facts, chosen, held))
    decisions += length_decisions(facts, length, hours)
    return Choice(chosen, speed, length, decisions, chooser.measured)


def _size_reason(facts: StoreFacts, chosen: Candidate, held: Sequence[Candidate]) -> str:
    shrunk = max(facts.size) / max(chosen.size)
    pixel = ""
    if facts.spacing is not None:
        pixel = f", a pixel is about {facts.spacing[2] * shrunk:.2g} mm"
    shape = f"of {facts.size[0]} × {facts.size[1]} (median){pixel}"
    if chosen.size == held[0].size:
        return f"{shape}: the largest that is worth it, or that the memory holds"
    return f"{shape}: the largest of which enough images are seen in the time"


def _too_little(
    facts: StoreFacts, least: Candidate, speed: Speed, length: Length, hours: float
) -> UsageError:
    fixed = speed.reading + 2 * speed.validation + SECONDS_AROUND
    needed = (length.steps * speed.step + speed.checkpoint + speed.validation + fixed) / (
        SHARE_OF_TIME * 3600
    )
    return UsageError(
        _DOING,
        expected=f"time for one epoch: {needed:.2g} h on this machine for {facts.slices} slices "
        f"with {least.title}, the smallest candidate",
        found=f"--hours {hours:g}",
        remedy=f"give --hours {_rounded_up(needed):g} for one epoch, or "
        f"{_rounded_up(needed * 20):g} for something worth having",
    )


def _rounded_up(hours: float) -> float:
    """To two digits, never less."""
    return float(f"{hours * 1.05:.2g}")
