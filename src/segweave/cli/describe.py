"""What `segweave info PATH` shows of a store, run, model, evaluation, recipe or image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segweave.cli.options import GeometryChoice
from segweave.errors import InputError
from segweave.runs import run_folder
from segweave.storage import read_json


def describe(path: Path, geometry: GeometryChoice = "check") -> tuple[str, dict[str, Any]]:
    """A title, and names and values. Raises InputError for a path of any other kind."""
    if not path.exists():
        raise InputError(
            "describing", file=path, expected="a file or folder", found="nothing there"
        )
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if {"manifest.json", "cases.csv"} <= names:
            return f"Evaluation {path}", _evaluation(path)
        if {"manifest.json", "records"} <= names:
            return f"Store {path}", _store(path)
        if run_folder.RECIPE in names:
            return f"Run {path}", _run(path)
        if run_folder.CARD in names:
            return f"Model {path}", _card(path)
        raise InputError(
            "describing",
            file=path,
            expected="a store, run, model or evaluation",
            found=", ".join(sorted(names)[:5]) or "an empty folder",
        )
    if path.suffix in (".yaml", ".yml"):
        return f"Recipe {path}", _recipe(path)
    return f"Image {path}", _image(path, geometry)


def _store(path: Path) -> dict[str, Any]:
    from segweave.data.store import Store

    return Store(path).describe()


def _evaluation(path: Path) -> dict[str, Any]:
    from segweave.evaluation import read_evaluation, summarise
    from segweave.evaluation.tables import quantity_of

    evaluation = read_evaluation(path)
    manifest = evaluation.manifest
    values: dict[str, Any] = {
        "protocol": f"{manifest.protocol}: {manifest.title}",
        "cases": f"{manifest.cases} in {manifest.groups} groups",
        "classes": manifest.classes,
        "sources": manifest.sources,
    }
    for arm in summarise([evaluation]):
        value = arm.macro.overlaps.get(arm.primary)
        if value is not None:
            quantity = quantity_of(arm.primary, arm.metrics)
            values[f"{quantity} {arm.arm}".strip()] = f"{value.mean:.4f}"
    return values


def _run(path: Path) -> dict[str, Any]:
    from segweave.registry import metrics
    from segweave.report.run_report import evaluations_of, validation_scores
    from segweave.training import Run

    run = Run(path)
    recipe, rows = run.recipe, run.metrics
    environment = run.environment
    context = recipe.context
    values: dict[str, Any] = {
        "arm": recipe.arm,
        "seed": recipe.seed,
        "network": f"{recipe.network.name} {recipe.network.options or ''}".strip(),
        "context": "none" if context is None else f"{context.name} at {recipe.weaving.at}",
        "slices": recipe.slices,
        "data": environment["data"]["name"],
        "cases": environment["data"]["cases"],
        "state": "finished" if run.finished else "not finished: the same command continues it",
    }
    if rows:
        values["steps"] = int(rows[-1]["step"])
        metric, points = validation_scores(rows)
        if points:
            last, best = points[-1][1], max(value for _, value in points)
            quantity = metrics.card(metric).heading
            values[f"validation {quantity}"] = f"last {last:.4f}, best {best:.4f}"
    if run.finished:
        values["parameters"] = f"{run.model_card['parameters']:,}"
    for evaluation in evaluations_of(run):
        shown = _evaluation(evaluation.folder)
        facts = ("protocol", "cases", "classes", "sources")
        scores = ", ".join(f"{k} {v}" for k, v in shown.items() if k not in facts)
        values[evaluation.folder.name] = f"{scores} ({shown['cases']})"
    return values


def _card(path: Path) -> dict[str, Any]:
    file = path / "card.json"
    card = read_json(file, "reading a model card", expected="a model card")
    return {key: value for key, value in card.items() if key != "recipe"}


def _recipe(path: Path) -> dict[str, Any]:
    from segweave.recipes import load_recipe

    return load_recipe(path).to_dict()


def _image(path: Path, geometry: GeometryChoice) -> dict[str, Any]:
    from segweave.formats import read_case

    case = read_case(path, geometry=geometry)
    values: dict[str, Any] = {
        "slices": case.slices,
        "channels": case.image.shape[1],
        "size": f"{case.size[0]} × {case.size[1]}",
        "values": f"{case.image.dtype}, {case.image.min()} to {case.image.max()}",
        "stack": case.stack,
        "spacing": "unknown" if case.spacing is None else [f"{s:.4g} mm" for s in case.spacing],
    }
    if case.label is not None:
        import numpy as np

        values["label ids"] = [int(value) for value in np.unique(case.label)]
    return values
