"""How a run is scored and on what, and what was: test cases once under a protocol, the label maps
kept.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.errors import InputError, UsageError
from segweave.storage import read_json, sha256_of, sha256_of_text, write_json

if TYPE_CHECKING:
    from segweave.data.store import CaseStore
    from segweave.prediction import Flips, Tiles
    from segweave.training import Run

_LEDGER = "tested.json"
BEST_ON_TEST = "best-on-test"


@dataclass(frozen=True)
class Variant:
    """A run, or several averaged, the first of which keeps the evaluation; `checkpoint` None is the
    finished model.
    """

    runs: tuple[Run, ...]
    checkpoint: str | None = None
    flips: Flips = "none"
    tiles: Tiles | None = None

    @property
    def run(self) -> Run:
        """The run that keeps the evaluation."""
        return self.runs[0]

    @property
    def names(self) -> list[str]:
        """What is added to the evaluation's name. Members are told by a sum over their weights, so
        that two averages never share a name, wherever their runs lie.
        """
        sums = "".join(sorted(model_sum(run) for run in self.runs))
        short = sha256_of_text(sums)[:8]
        return self._names([f"mean-of-{len(self.runs)}-{short}"])

    @property
    def arm(self) -> str:
        """The arm's name. An average's tells arms and seeds of its members: averages that share
        some are no independent trainings, those of several folds may be one arm.
        """
        first = self.run.recipe.arm
        seeds: dict[str, list[int]] = {first: []}
        for run in self.runs:
            seeds.setdefault(run.recipe.arm, []).append(run.recipe.seed)
        others = sorted(arm for arm in seeds if arm != first)
        told = [
            f"{arm}-seeds-" * (arm != first) + "-".join(map(str, sorted(seeds[arm])))
            for arm in (first, *others)
        ]
        return "-".join([first, *self._names([f"mean-of-{len(self.runs)}-seeds", *told])])

    def _names(self, members: Sequence[str]) -> list[str]:
        return [
            *([self.checkpoint] if self.checkpoint is not None else []),
            *(members if len(self.runs) > 1 else []),
            *([f"flips-{self.flips}"] if self.flips != "none" else []),
            *(["tiles"] if self.tiles is not None else []),
        ]

    @property
    def sources(self) -> dict[str, str]:
        """Where the runs lie and which models they are, for the evaluation's manifest."""
        found = {"run": str(self.run.folder.absolute()), "model": model_sum(self.run)}
        if len(self.runs) > 1:
            found["members"] = ", ".join(str(run.folder.absolute()) for run in self.runs[1:])
        return found

    def training_groups(self, store: CaseStore) -> int | None:
        """How many groups the runs were trained on, None where their numbers differ."""
        from segweave.training.run_training import choose_parts

        counts = set()
        for run in self.runs:
            training = choose_parts(run.recipe, store_of(run, store))["training"]
            counts.add(len({store.groups[id] for id in training}))
        return counts.pop() if len(counts) == 1 else None

    def check_cases(self, ids: Sequence[str], part: str, store: CaseStore) -> None:
        """Raise UsageError where a member is of other data or learned from the cases to score."""
        from segweave.training.run_training import choose_parts

        learned = ("training",) if part == "validation" else ("training", "validation")
        groups = {store.groups[id] for id in ids}
        for member in self.runs[1:]:
            parts = choose_parts(member.recipe, store_of(member, store))
            seen = {store.groups[id] for name in learned for id in parts.get(name, ())}
            if part != "training" and groups & seen:
                raise UsageError(
                    "averaging runs",
                    file=member.folder,
                    expected=f"runs that did not learn from the {part} cases of the first",
                    found=f"{len(groups & seen)} of their {len(groups)} groups among its own",
                    remedy="average runs of one fold; for new images all folds may be averaged",
                )


def model_sum(run: Run) -> str:
    """What tells a run's model from any other: the checksum of its weights."""
    stated = run.model_card.get("weights_sha256")
    return str(stated or sha256_of(run.layout.weights))


def store_of(run: Run, store: CaseStore | str | Path | None) -> CaseStore:
    """The store that a run was trained on, known by its checksum."""
    from segweave.data.store import Store

    place = store if store is not None else run.recipe.data.store
    if place is None:
        raise UsageError(
            "evaluating a run", file=run.folder, expected="its store", found="none named in it"
        )
    opened = Store(place) if isinstance(place, str | Path) else place
    checksum = run.environment["data"]["checksum"]
    if opened.checksum != checksum:
        raise InputError(
            "evaluating a run",
            file=run.folder,
            expected=f"the store that it was trained on (checksum {checksum[:12]})",
            found=f"the store {opened.name} with checksum {opened.checksum[:12]}",
            remedy="give the store as it was; for other data, predict files and score those",
        )
    return opened


def check_scored_once(
    runs: Sequence[Run], name: str, protocol: str, dataset: str, force: bool
) -> dict[str, int]:
    """How often the test cases of `runs` were scored under `protocol`, by the name of the
    evaluation, with `name` counted once more. Raises UsageError where they were at all, in whatever
    variant, unless `force`d; the checkpoint `best-on-test` counts by itself. `dataset` tells which
    protocol "published" was in older ledgers.
    """
    counts: dict[str, int] = {}
    for run in runs:
        done = {
            key: entry
            for key, entry in _ledger(run).items()
            if _protocol_of(key, entry, dataset) == protocol
            # Chosen on the test cases and called so: it stands beside the others, not in their
            # place.
            and (BEST_ON_TEST in key) == (BEST_ON_TEST in name)
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
                "alone on test; after a repaired fault, force it",
            )
        for key, entry in done.items():
            counts[key] = max(counts.get(key, 0), entry["times"])
    return {**counts, name: counts.get(name, 0) + 1}


def note_scored(runs: Sequence[Run], name: str, protocol: str, folder: Path) -> None:
    """Write down in each of the runs that their test cases were scored now."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    for run in runs:
        ledger = _ledger(run)
        times = ledger.get(name, {}).get("times", 0) + 1
        ledger[name] = {"protocol": protocol, "when": when, "folder": str(folder), "times": times}
        write_json(run.folder / "evaluation" / _LEDGER, ledger)


def _ledger(run: Run) -> dict[str, dict[str, Any]]:
    """Name of the evaluation → when and where it was written last, and how often."""
    path = run.folder / "evaluation" / _LEDGER
    if not path.is_file():
        return {}
    doing = "reading what was scored already"
    content = read_json(path, doing)
    entries = content.values()
    if not all(isinstance(e, dict) and {"when", "folder", "times"} <= set(e) for e in entries):
        raise InputError(
            doing, file=path, expected="names with when, folder and times", found="something else"
        )
    return content


def _protocol_of(name: str, entry: dict[str, Any], dataset: str) -> str:
    """The protocol of an entry. Older ones say it in the name alone, before checkpoint, members and
    flips, and "published" for that of the data set.
    """
    from segweave.evaluation.families import get_protocol, list_protocols

    if "protocol" in entry:
        return str(entry["protocol"])
    known = [protocol for protocol in list_protocols() if f"{name}-".startswith(f"{protocol}-")]
    return get_protocol(max(known, key=len), dataset=dataset).name if known else name


def replaces_its_own(run: Run, folder: Path) -> bool:
    """Whether `folder` holds an evaluation of this very run on cases other than test cases."""
    from segweave.evaluation import read_evaluation

    try:
        manifest = read_evaluation(folder).manifest
    except InputError:
        return False
    sources = manifest.sources
    if sources.get("part", "test") == "test" or "run" not in sources:
        return False
    if sources.get("model", model_sum(run)) != model_sum(run):
        return False
    inside = folder.resolve().parent == (run.folder / "evaluation").resolve()
    of_it = Path(sources["run"]).resolve() == run.folder.resolve()
    recipe = run.recipe
    return (inside or of_it) and (manifest.seeds, manifest.folds) == ([recipe.seed], [recipe.fold])


def label_maps_folder(run: Run, name: str, evaluation: Path) -> Path:
    """Where the label maps of the evaluation `name` lie: `RUN/predictions/NAME`, and under a name
    of their own where the evaluation is written elsewhere.
    """
    place = evaluation.resolve()
    if place != (run.folder / "evaluation" / name).resolve():
        name += f"-{place.name}-{sha256_of_text(str(place))[:8]}"
    return run.folder / "predictions" / name


def keep(labels: NDArray[np.uint8], case: Case, folder: Path) -> None:
    """Write the label map of a case that was scored, at the case's own size."""
    from segweave.evaluation import nearest_zoom
    from segweave.formats import label_format, suitable_format, write_label

    if labels.shape[-2:] != case.size:
        # Scored at the network's size; kept at the case's, to be looked at.
        labels = nearest_zoom(labels, case.size)
    name = urllib.parse.quote(case.id, safe=" ")
    ending = label_format(suitable_format(case, overlapping=labels.ndim == 4)).suffixes[0]
    write_label(labels, case, folder / f"{name}{ending}")
