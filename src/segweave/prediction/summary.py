"""The list of what was predicted into a folder: predictions.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segweave import __version__
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError
from segweave.prediction.planning import DOING, PredictedFile, as_entry
from segweave.storage import read_json, write_json

SUMMARY = "predictions.json"
FORMAT = 1


def read_summary(file: Path, force: bool) -> list[dict[str, Any]]:
    """The cases that an earlier call into the same folder listed."""
    if not file.exists():
        return []
    expected = "a summary of predictions that can be added to"
    remedy = "choose another folder, or replace it with force (--force)"
    try:
        content = read_json(file, DOING, formats=(FORMAT,), expected=expected, remedy=remedy)
        cases = content.get("cases")
        if not isinstance(cases, list) or not all(
            isinstance(case, dict) and isinstance(case.get("labels"), str) for case in cases
        ):
            raise InputError(
                DOING, file=file, expected=expected, found="no list of cases", remedy=remedy
            )
    except InputError:
        if force:
            return []
        raise
    return cases


def write_summary(
    folder: Path,
    model: Mapping[str, Any],
    target: TargetSpec,
    files: Sequence[PredictedFile],
    failures: Sequence[tuple[Path, SegweaveError]],
    earlier: Sequence[dict[str, Any]],
) -> None:
    """Write predictions.json: the `files` and `failures` of this call, and the cases of `earlier`
    calls whose label maps are not those of this one.
    """
    cases = [as_entry(file, folder) for file in files]
    written = {case["labels"] for case in cases}
    content = {
        "format": FORMAT,
        "segweave": __version__,
        "model": dict(model),
        "target": target.model_dump(mode="json"),
        "cases": [case for case in earlier if case["labels"] not in written] + cases,
        "failures": [{"file": str(file), "message": str(error)} for file, error in failures],
    }
    write_json(folder / SUMMARY, content)


def model_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary states of a model, by its card."""
    keys = (
        "title", "arm", "weights_sha256", "members", "flips", "tiles", "temperature", "denoised_by"
    )  # fmt: skip
    return {key: card[key] for key in keys if key in card}
