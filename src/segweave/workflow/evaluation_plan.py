"""What an evaluation of a run will score and where it goes, checked before torch is imported; and
the ledger of a run: test cases are scored once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from segweave.data.specs import check_classes
from segweave.data.splits import only_split
from segweave.data.store import CaseStore
from segweave.errors import InputError, UsageError, nearest
from segweave.evaluation import (
    Protocol,
    check_metrics,
    get_protocol,
    list_protocols,
    needs_probabilities,
)
from segweave.evaluation.folder import check_free
from segweave.prediction.flips import Flips
from segweave.prediction.tiles import Tiles
from segweave.runs.run_folder import Run, model_folder
from segweave.storage import can_write, read_json, write_json
from segweave.workflow.variants import Variant, may_replace, open_store, part_of_joined

_log = logging.getLogger(__name__)

_BEST_ON_TEST = "best-on-test"
Part = Literal["test", "validation", "training", "all"]
Ledger = dict[str, dict[str, Any]]
"""Name of an evaluation → protocol, store, when, where and how often test cases were scored."""


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation that may be made.

    Attributes:
        run: the run that keeps it.
        store: the store whose cases are scored.
        variant: what is scored.
        protocol: its rules.
        metrics: metrics beside those of the protocol.
        ids: the cases.
        name: the evaluation's name.
        folder: where it is written.
        away: whether that is elsewhere than in the run.
        tests: whether there are test cases among them.
        key: its name in the ledger.
        tested: how often test cases were scored, with this time.
        force: whether what is in the folder may be replaced.
        calibration: whether calibration curves are wanted.
    """

    run: Run
    store: CaseStore
    variant: Variant
    protocol: Protocol
    metrics: list[str]
    ids: list[str]
    name: str
    folder: Path
    away: bool
    tests: bool
    key: str
    tested: dict[str, int]
    force: bool
    calibration: bool = False


def plan_evaluation(
    run: str | Path | Run,
    *,
    part: Part,
    protocol: str,
    checkpoint: str | None,
    members: Sequence[str | Path | Run],
    flips: Flips,
    tiles: Tiles | None,
    store: CaseStore | str | Path | None,
    metrics: Sequence[str],
    calibration: bool,
    calibrated: bool,
    out: str | Path | None,
    force: bool,
) -> EvaluationPlan:
    """The plan of `segweave.evaluate`, whose arguments these are, every one given; reads no image
    and changes nothing. Raises what that raises for wrong options, runs and cases.
    """
    run = run if isinstance(run, Run) else Run(run)
    if part not in get_args(Part):
        raise UsageError(
            "choosing cases to score", found=repr(part), remedy=nearest(part, get_args(Part))
        )
    cases = open_store(run, store)
    other = cases.checksum != run.environment["data"]["checksum"]
    more = tuple(one if isinstance(one, Run) else Run(one) for one in members)
    rules = get_protocol(protocol, dataset=cases.name, target=cases.target)
    added = [metric for metric in metrics if metric not in rules.definitions]
    check_metrics(added, probabilities=True, task=rules.task)
    if calibration:
        check_classes(cases.target, "measuring calibration")
    runs = (run, *more)
    wanted = calibrated and checkpoint is None and (calibration or needs_probabilities(added))
    temperature = wanted and _has_temperature(runs, flips, tiles)
    named = cases.name if other else None
    variant = Variant(runs, checkpoint, flips, tiles, named, temperature)

    # Choose the cases.
    ids = _choose(run, part, cases, other=other)
    if checkpoint is not None:
        for one in variant.runs:
            model_folder(one.folder, checkpoint)
    variant.check_cases(ids, part, cases)
    name = variant.evaluation_name(protocol, part)
    standard = run.layout.evaluation(name)
    folder = Path(out) if out is not None else standard
    away = folder.resolve() != standard.resolve()

    # Ask the ledger.
    tests = part in ("test", "all")
    key = f"{name}-{cases.checksum[:8]}" if other else name
    tested: dict[str, int] = {}
    if tests:
        tested = check_scored_once(
            variant.runs, key, rules.name, cases.checksum, cases.name, force=force
        )
    force = force or (not tests and may_replace(run, folder))
    check_free(folder, force=force)

    return EvaluationPlan(
        run,
        cases,
        variant,
        rules,
        added,
        ids,
        name,
        folder,
        away,
        tests,
        key,
        tested,
        force,
        calibration,
    )


def _has_temperature(runs: Sequence[Run], flips: Flips, tiles: Tiles | None) -> bool:
    """Whether a model card has a temperature for this combination."""
    cards = [run.model_card for run in runs]
    if not any(card.get("temperatures") for card in cards):
        return False
    # Imported where it is needed: most models have none.
    from segweave.prediction.temperature import kept_temperature

    return kept_temperature(cards, flips, tiles) is not None


def _choose(run: Run, part: str, store: CaseStore, *, other: bool) -> list[str]:
    """The ids of the cases to score. Raises UsageError where there are none."""
    doing = f"choosing the {part} cases of the store {store.name}"
    if part == "all":
        ids = list(store.ids)
    elif not other:
        ids = run.recipe.choose_parts(store).get(part, [])
    elif (of_joined := part_of_joined(run, part, store)) is not None:
        ids = of_joined
    else:
        split = only_split(store.splits)
        named = str(getattr(run.recipe.data, part))
        if split is None or named not in store.splits[split]:
            raise UsageError(
                doing,
                expected=f"one split with the part {named}",
                found=", ".join(store.splits) or "no splits",
                remedy="score every case of that store with --part all",
            )
        ids = list(store.splits[split][named])
    if not ids:
        raise UsageError(doing, expected="at least one case", found="none")
    return ids


def check_scored_once(
    runs: Sequence[Run], key: str, protocol: str, checksum: str, dataset: str, *, force: bool
) -> dict[str, int]:
    """How often the test cases were scored, by evaluation, with this time counted as `key`.

    Args:
        runs: the runs whose ledgers are read.
        key: the name of the evaluation in the ledger.
        protocol: the name of the protocol.
        checksum: that of the store that is scored; each store is counted separately.
        dataset: the store's data set, which says which protocol "published" was in old ledgers.
        force: count, but do not refuse.

    Raises UsageError where they were scored at all, as any variant, unless `force`. The checkpoint
    `best-on-test` is counted separately.
    """
    counts: dict[str, int] = {}
    for run in runs:
        own_store = run.environment["data"]["checksum"]
        done = {
            name: entry
            for name, entry in _scored(run).items()
            if _protocol_of(name, entry, dataset) == protocol
            and entry.get("store", own_store) == checksum
            # It was chosen on the test cases and its name says so: reported beside the others.
            and (_BEST_ON_TEST in name) == (_BEST_ON_TEST in key)
        }
        if done and not force:
            last = max(done.values(), key=lambda entry: entry["when"])
            raise UsageError(
                "scoring test cases a second time",
                file=run.folder,
                expected=f"test cases that this run was not scored on yet under {protocol}, "
                "with any checkpoint, members, flips or tiles",
                found=f"scores ({', '.join(done)}), the last of {last['when']} in {last['folder']}",
                remedy="read those; a choice made after looking at test scores makes them "
                "worthless, so compare checkpoints, flips, tiles and averages on part validation "
                "(segweave evaluate RUN --part validation --flips both) and score the chosen one "
                "alone on test; after a fault was repaired, use --force",
            )
        for name, entry in done.items():
            counts[name] = max(counts.get(name, 0), entry["times"])
    return {**counts, key: counts.get(key, 0) + 1}


def note_scored(
    runs: Sequence[Run], key: str, protocol: str, checksum: str, folder: Path, times: int = 1
) -> None:
    """Note in each of the runs that the test cases of a store were scored now. A run that can't be
    written is named in a warning.

    Args:
        runs: the runs whose ledgers are written.
        key: the name of the evaluation in the ledger.
        protocol: the name of the protocol.
        checksum: that of the store.
        folder: where the evaluation is.
        times: how often they were scored, as `check_scored_once` counted.
    """
    when = datetime.now(UTC).isoformat(timespec="seconds")
    for run in runs:
        if not can_write(run.layout.evaluations):
            _log.warning(
                "%s can't be written: it does not note that its test cases were scored; do not "
                "choose anything by these scores",
                run.folder,
            )
            continue
        ledger = _read_ledger(run)
        ledger[key] = {
            "protocol": protocol,
            "store": checksum,
            "when": when,
            "folder": str(folder),
            "times": max(ledger.get(key, {}).get("times", 0) + 1, times),
        }
        write_json(run.layout.ledger, ledger)


def _scored(run: Run) -> Ledger:
    """The ledger, and evaluations of the run that were written whole but not noted, because the
    process was killed in between.
    """
    found = _read_ledger(run)
    for file in sorted(run.layout.evaluations.glob("*/manifest.json")):
        try:
            manifest = read_json(file, "reading which test cases were scored")
            tested = {str(key): int(times) for key, times in manifest["tested"].items()}
            facts = {"protocol": manifest["protocol"], "store": manifest["sources"]["store"]}
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            continue  # of an earlier version, or not an evaluation
        when = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
        for key, times in tested.items():
            if found.get(key, {}).get("times", 0) < times:
                found[key] = {**facts, "when": when, "times": times, "folder": str(file.parent)}
    return found


def _read_ledger(run: Run) -> Ledger:
    path = run.layout.ledger
    if not path.is_file():
        return {}
    doing = "reading which test cases were scored"
    content = read_json(path, doing)
    if not all(
        isinstance(e, dict) and {"when", "folder", "times"} <= set(e) for e in content.values()
    ):
        raise InputError(
            doing, file=path, expected="names with when, folder and times", found="something else"
        )
    return content


def _protocol_of(name: str, entry: dict[str, Any], dataset: str) -> str:
    """The protocol of an entry. Old entries have it only in their name, before checkpoint, members
    and flips, and "published" for the protocol of the data set.
    """
    if "protocol" in entry:
        return str(entry["protocol"])
    names = [protocol for protocol in list_protocols() if f"{name}-".startswith(f"{protocol}-")]
    return get_protocol(max(names, key=len), dataset=dataset).name if names else name
