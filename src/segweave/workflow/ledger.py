"""Who scored which test cases: they are scored once, which the run's ledger records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segweave.errors import InputError, UsageError
from segweave.evaluation import get_protocol, list_protocols
from segweave.runs.run_folder import Run
from segweave.storage import can_write, read_json, write_json

_log = logging.getLogger(__name__)

_BEST_ON_TEST = "best-on-test"
Ledger = dict[str, dict[str, Any]]
"""Name of an evaluation → protocol, store, when, where and how often test cases were scored."""


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
        ledger = _read(run)
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
    found = _read(run)
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


def _read(run: Run) -> Ledger:
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
