"""What a calibration will be fitted on, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segweave.data.store import CaseStore
from segweave.errors import SegweaveError, UsageError
from segweave.prediction.flips import Flips, check_flips
from segweave.prediction.temperature import kept_temperature
from segweave.prediction.tiles import Tiles
from segweave.runs.run_folder import Run
from segweave.storage import can_write
from segweave.workflow.variants import Variant, open_store

_DOING = "calibrating a run"


@dataclass(frozen=True)
class CalibrationPlan:
    """A calibration that may be made: the runs, the store and the validation cases."""

    variant: Variant
    store: CaseStore
    ids: list[str]


def plan_calibration(
    run: str | Path | Run,
    *,
    members: Sequence[str | Path | Run] = (),
    flips: Flips = "none",
    tiles: Tiles | None = None,
    store: CaseStore | str | Path | None = None,
    force: bool = False,
) -> CalibrationPlan:
    """The plan of `calibrate`, whose arguments these are; reads no image and changes nothing.
    Raises what that raises for wrong options, runs and cases.
    """
    check_flips(flips)
    run = run if isinstance(run, Run) else Run(run)
    cards = [run.model_card]
    variant = Variant(
        (run, *(one if isinstance(one, Run) else Run(one) for one in members)), None, flips, tiles
    )
    cards += [one.model_card for one in variant.runs[1:]]
    earlier = kept_temperature(cards, flips, tiles)
    if earlier is not None and not force:
        raise UsageError(
            _DOING,
            file=run.folder,
            expected="one that has no temperature for these members, flips and tiles",
            found=f"the temperature {earlier['temperature']:g}, fitted before",
            remedy="fit it again and replace it with force (--force)",
        )
    cases = open_store(run, store)
    known = run.environment["data"]["checksum"]
    if known and cases.checksum != known:
        raise UsageError(
            _DOING,
            file=run.folder,
            expected="the store that it was trained on, whose validation cases it has",
            found=f"the store {cases.name}, which is another",
            remedy="leave --store out, or give the path of that store where it was moved",
        )
    ids = run.recipe.choose_parts(cases).get("validation", [])
    if not ids:
        raise UsageError(
            _DOING,
            file=run.folder,
            expected="validation cases: a temperature is never fitted on training or test cases",
            found="none in its split",
            remedy="train with a validation part (data.validation)",
        )
    variant.check_cases(ids, "validation", cases)
    if not can_write(run.layout.model):
        raise SegweaveError(
            _DOING,
            file=run.layout.card,
            expected="a model card that can be written, as it keeps the temperature",
            found="no permission, or a read-only file system",
            remedy="copy the run to where it can be written",
        )
    return CalibrationPlan(variant, cases, list(ids))
