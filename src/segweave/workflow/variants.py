"""What is scored of a run: its finished model or a checkpoint, alone or averaged with other runs,
with flips and tiles; the names of these variants, and which cases they may be scored on: none that
a run learned from. Imports no torch.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segweave.data.joined_store import JoinedStore
from segweave.data.store import CaseStore, Store
from segweave.errors import InputError, UsageError
from segweave.evaluation import read_evaluation
from segweave.prediction.flips import Flips
from segweave.prediction.tiles import Tiles
from segweave.recipes import ArmIdentity
from segweave.runs.run_folder import WEIGHTS, Run
from segweave.storage import canonical_json, sha256_of, sha256_of_text


@dataclass(frozen=True)
class Variant:
    """What is scored, and on which store.

    Attributes:
        runs: the run that keeps the evaluation, then those that are averaged with it.
        checkpoint: "last", "best" or "best-on-test"; None is the finished model.
        flips: mirror images that are averaged too.
        tiles: how images are cut into tiles, None where they are not.
        other_store: the name of the store that is scored, None where it is the run's own.
        temperature: whether probabilities are scored that have the temperature of a model card.
            Labels do not depend on it, so it is set only where probabilities are scored.
    """

    runs: tuple[Run, ...]
    checkpoint: str | None = None
    flips: Flips = "none"
    tiles: Tiles | None = None
    other_store: str | None = None
    temperature: bool = False

    @property
    def run(self) -> Run:
        """The run that keeps the evaluation."""
        return self.runs[0]

    def evaluation_name(self, protocol: str, part: str) -> str:
        """The name of the evaluation's folder. Members are identified by a digest of their
        weights, so that two averages never share a name, whatever the paths of their runs.
        """
        digests = "".join(sorted(weights_digest(run) for run in self.runs))
        members = f"mean-of-{len(self.runs)}-{sha256_of_text(digests)[:8]}"
        store = self.other_store
        return "-".join(
            [
                protocol,
                *([f"on-{urllib.parse.quote(store, safe=' ')}"] if store is not None else []),
                *([part] if part != "test" else []),
                *self._options([members]),
            ]
        )

    @property
    def arm(self) -> str:
        """The arm's name. The name of an average has the arms and seeds of its members, because
        averages that share members are not independent trainings.
        """
        first = self.run.recipe.arm
        seeds: dict[str, list[int]] = {first: []}
        for run in self.runs:
            seeds.setdefault(run.recipe.arm, []).append(run.recipe.seed)
        others = sorted(arm for arm in seeds if arm != first)
        members = [
            f"{arm}-seeds-" * (arm != first) + "-".join(map(str, sorted(seeds[arm])))
            for arm in (first, *others)
        ]
        return "-".join([first, *self._options([f"mean-of-{len(self.runs)}-seeds", *members])])

    def _options(self, members: Sequence[str]) -> list[str]:
        return [
            *([self.checkpoint] if self.checkpoint is not None else []),
            *(members if len(self.runs) > 1 else []),
            *([f"flips-{self.flips}"] if self.flips != "none" else []),
            *(["tiles"] if self.tiles is not None else []),
            *(["temperature"] if self.temperature else []),
        ]

    @property
    def identity(self) -> ArmIdentity:
        """The digest and recipe that the evaluation's manifest has: those of the arm itself, where
        its finished model alone predicts, else those of this variant of it.
        """
        arms = [run.identity for run in self.runs]
        settings = {
            "checkpoint": self.checkpoint,
            "flips": None if self.flips == "none" else self.flips,
            "tiles": None if self.tiles is None else asdict(self.tiles),
            "temperature": self.temperature or None,
            "members": sorted(
                [arm.digest, run.recipe.seed] for arm, run in zip(arms, self.runs, strict=True)
            )
            if len(arms) > 1
            else None,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        if not given:
            return arms[0]
        variant = canonical_json({"arm": arms[0].digest, "prediction": given})
        return ArmIdentity(sha256_of_text(variant), {**arms[0].recipe, "prediction": given})

    @property
    def sources(self) -> dict[str, str]:
        """Paths of the runs and the digest of the model, for the evaluation's manifest."""
        sources = {"run": str(self.run.folder.absolute()), "model": weights_digest(self.run)}
        if len(self.runs) > 1:
            sources["members"] = ", ".join(str(run.folder.absolute()) for run in self.runs[1:])
        return sources

    @property
    def training_groups(self) -> int | None:
        """How many groups the runs were trained on, None where their numbers differ."""
        counts = {len(run.training_data["groups"]) for run in self.runs}
        return (counts.pop() or None) if len(counts) == 1 else None

    def check_cases(self, ids: Sequence[str], part: str, store: CaseStore) -> None:
        """Raise UsageError where a run learned from the cases that shall be scored.

        Args:
            ids: the cases.
            part: the part that they are, of the first run's split or of another store.
            store: the store that holds them.
        """
        if part == "training":
            return
        if self.other_store is not None:
            for run in self.runs:
                _check_other_store(run, ids, part, store)
            return
        groups = {store.groups[id] for id in ids}
        for member in self.runs[1:]:
            _check_same_data(self.run, member)
            data = member.training_data
            learned = set(data["groups"])
            learned |= set(data["validation_groups"]) if part != "validation" else set()
            shared = groups & learned
            if shared and part != "all":
                raise UsageError(
                    "averaging runs",
                    file=member.folder,
                    expected=f"runs that did not learn from the {part} cases of the first",
                    found=f"{len(shared)} of their {len(groups)} groups in its training",
                    remedy="average runs of one fold; for new images all folds may be averaged",
                )


def weights_digest(run: Run) -> str:
    """The sha256 of a run's weights, which identifies its model."""
    digest = run.model_card.get("weights_sha256")
    return str(digest or sha256_of(run.model / WEIGHTS))


def open_store(run: Run, store: CaseStore | str | Path | None) -> CaseStore:
    """The store to score a run on; without one, the store that the run was trained on.

    Raises UsageError where the run names none, InputError where it is no longer the same.
    """
    if store is not None:
        return Store(store) if isinstance(store, str | Path) else store
    named = run.recipe.data.store is not None
    opened = run.open_store() if named and run.environment["data"]["checksum"] else None
    if opened is None:
        raise UsageError(
            "scoring a run",
            file=run.folder,
            expected="its store",
            found="none named in its recipe",
            remedy="give the store (--store)",
        )
    checksum = run.environment["data"]["checksum"]
    if opened.checksum != checksum:
        raise InputError(
            "scoring a run",
            file=run.folder,
            expected=f"the store that it was trained on (checksum {checksum[:12]})",
            found=f"the store {opened.name} with checksum {opened.checksum[:12]}",
            remedy="give the path of the store as it was, or of another data set (--store)",
        )
    return opened


def part_of_joined(run: Run, part: str, store: CaseStore) -> list[str] | None:
    """The cases of `store` that are in this part of the run's split, where the run was trained on
    several stores together and `store` is one of them; else None.
    """
    if isinstance(run.recipe.data.store, str | None):
        return None
    with contextlib.suppress(InputError):
        joined = open_store(run, None)
        assert isinstance(joined, JoinedStore)
        for name, one in joined.stores.items():
            if one.checksum == store.checksum:
                ids = run.recipe.choose_parts(joined).get(part, [])
                return [id.removeprefix(f"{name}/") for id in ids if id.startswith(f"{name}/")]
    return None


def _check_same_data(run: Run, member: Run) -> None:
    first, second = (r.environment["data"] for r in (run, member))
    if first["checksum"] != second["checksum"]:
        raise InputError(
            "averaging runs",
            file=member.folder,
            expected=f"a run on the data of the first (checksum {first['checksum'][:12]})",
            found=f"the store {second['name']} with checksum {second['checksum'][:12]}",
        )


def _check_other_store(run: Run, ids: Sequence[str], part: str, store: CaseStore) -> None:
    """Raise UsageError where cases of another store are those that the run learned from: the same
    content, or the same group of a data set of the same name.
    """
    data = run.training_data
    # A joined store has the name of each of its stores in front of its groups.
    prefix = "" if data["name"] == store.name else f"{store.name}/"
    learned = {
        group.removeprefix(prefix)
        for group in (*data["groups"], *data["validation_groups"])
        if group.startswith(prefix)
    }
    contents = set(contents_of_training(run))
    learned_from = [
        id for id in ids if store.groups[id] in learned or store.entry(id).content in contents
    ]
    if learned_from:
        raise UsageError(
            f"scoring a run on the store {store.name}",
            file=run.folder,
            expected=f"{part} cases that the run did not learn from",
            found=f"{len(learned_from)} of {len(ids)} that it was trained or validated on, such as "
            f"{learned_from[0]}",
            remedy="leave them out of the store, or score them as what they are with "
            "--part training",
        )


def contents_of_training(run: Run) -> Iterator[str]:
    """Checksums of the cases that a run learned from, where its store is still there."""
    with contextlib.suppress(InputError, UsageError):
        store = open_store(run, None)
        parts = run.recipe.choose_parts(store)
        for name in ("training", "validation"):
            yield from (store.entry(id).content for id in parts.get(name, ()))


def may_replace(run: Run, folder: Path) -> bool:
    """Whether `folder` holds an evaluation of this very run on cases other than test cases, which a
    new one may replace.
    """
    try:
        manifest = read_evaluation(folder).manifest
    except InputError:
        return False
    sources = manifest.sources
    if sources.get("part", "test") in ("test", "all") or "run" not in sources:
        return False
    if sources.get("model", weights_digest(run)) != weights_digest(run):
        return False
    inside = folder.resolve().parent == run.layout.evaluations.resolve()
    same_run = Path(sources["run"]).resolve() == run.folder.resolve()
    recipe = run.recipe
    return (inside or same_run) and (manifest.seeds, manifest.folds) == (
        [recipe.seed],
        [recipe.fold],
    )
