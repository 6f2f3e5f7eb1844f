"""The demo: synthetic hearts, a UNet alone and with each module, scores, a figure, a report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segweave.errors import UsageError
from segweave.grid import Job, LocalProcesses, Report, RunEvent
from segweave.grid.progress import Watch, finished, silent
from segweave.grid.runners import failure
from segweave.runs.run_folder import REPORT
from segweave.storage import atomic_folder, canonical_json, read_json, write_json, write_text

if TYPE_CHECKING:
    from segweave.data.store import Store
    from segweave.evaluation import Evaluation, Table
    from segweave.training import Run

HEADING = "The demo shows how everything works; it is not evidence"
_WHY = (
    "Synthetic images, a tiny network, minutes of training, one seed: the differences between the "
    "rows say nothing about the modules. Every number was computed in this run."
)
PROTOCOLS = ("clean", "published")
EXAMPLES = "new"
ARMS: dict[str, tuple[str, ...]] = {
    "unet": (),
    "conv": ("context.name=conv", "input.slices=3"),
    "sa-lstm": ("context.name=sa-lstm", "input.slices=3"),
    "lstm-sa": ("context.name=lstm-sa", "input.slices=3"),
    "sa-embedded-lstm": ("context.name=sa-embedded-lstm", "input.slices=3"),
}


@dataclass(frozen=True)
class Settings:
    """How large the demo is; it trains the recipe `demo`.

    Attributes:
        patients: number of synthetic patients; each has two stacks.
        slices: slices per stack.
        size: (height, width) of a slice in pixels.
        sets: fields of the recipe to override, as texts "training.epochs=1".
        minutes: how long the whole demo takes on two cores, for the first line of its output.
    """

    patients: int = 24
    slices: int = 8
    size: tuple[int, int] = (128, 112)
    sets: tuple[str, ...] = ()
    minutes: float = 3


QUICK = Settings(
    patients=5,
    slices=4,
    size=(48, 40),
    sets=("training.epochs=1", "network.options.width=2", "input.size=[32,32]"),
    minutes=1,
)


@dataclass(frozen=True)
class Demo:
    """What the demo wrote: one table per protocol, and the paths of the figure, of the report, and
    of images that no arm has seen.
    """

    folder: Path
    tables: tuple[Table, ...]
    figure: Path
    report: Path
    examples: Path

    @property
    def markdown(self) -> str:
        """The comparison as Markdown, with its warning above it."""
        return "\n".join([f"## {HEADING}\n", _WHY, "", *(t.markdown() for t in self.tables)])


def run_demo(
    out: str | Path = "demo",
    *,
    quick: bool = False,
    settings: Settings | None = None,
    arms: Sequence[str] = tuple(ARMS),
    report: Report = silent,
) -> Demo:
    """Run the demo; what an interrupted call finished is used again.

    Args:
        out: the folder for everything.
        quick: make everything as small as possible.
        settings: sizes other than those of the demo.
        arms: names of the arms to train, of ARMS.
        report: called with each event (`segweave.grid.RunEvent`).

    Two arms are trained at a time where there are two cores, each on one thread. Raises UsageError
    where `out` holds something else, SegweaveError where a training fails (its output is in
    `out/logs`).
    """
    chosen = settings or (QUICK if quick else Settings())
    folder = Path(out)
    _claim(folder, chosen)

    def note(text: str) -> None:
        report(RunEvent("note", text=f"· {text}"))

    note(
        f"{chosen.patients} synthetic patients, {len(arms)} trainings, scores under "
        f"{len(PROTOCOLS)} protocols, a figure and a report in {folder}: about "
        f"{chosen.minutes:g} minutes on two cores"
    )
    note("writing synthetic hearts")
    phantoms = _phantoms(folder, chosen)
    _examples(folder, chosen)
    note("converting them into a store")
    store = _store(folder, phantoms)
    note(f"training {len(arms)} arms: {', '.join(arms)}")
    runs = _train(folder, store, arms, chosen, report)
    scores = {}
    for protocol in PROTOCOLS:
        note(f"scoring the test cases under the protocol {protocol}")
        scores[protocol] = _scores(runs, protocol)
    note("drawing the figure and the report")
    return _show(folder, store, runs, scores, chosen)


def _claim(folder: Path, settings: Settings) -> None:
    """Use a new folder, or that of a demo of the same size."""
    note = folder / "demo.json"
    wanted = {"format": 1, **asdict(settings)}
    del wanted["minutes"]
    if note.is_file():
        noted = read_json(note, "continuing a demo", formats=(1,))
        if canonical_json(noted) != canonical_json(wanted):
            raise UsageError(
                "continuing a demo",
                file=folder,
                expected="a demo of the same size",
                found="one of another size",
                remedy="choose another folder, or remove this one",
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "starting a demo",
            file=folder,
            expected="a new or empty folder, or one that a demo left",
            found="something else",
            remedy="choose another folder with --out",
        )
    write_json(note, wanted)


def _phantoms(folder: Path, settings: Settings) -> Path:
    from segweave.phantoms.cardiac import write_cardiac

    final = folder / "phantoms"
    if not final.is_dir():
        with atomic_folder(final) as temporary:
            write_cardiac(
                temporary, settings.patients, 0, size=settings.size, slices=settings.slices
            )
    return final


def _examples(folder: Path, settings: Settings) -> None:
    from segweave.phantoms.examples import write_examples

    final = folder / EXAMPLES
    if not final.is_dir():
        with atomic_folder(final) as temporary:
            write_examples(temporary, size=settings.size, slices=settings.slices)


def _store(folder: Path, phantoms: Path) -> Store:
    from segweave.data.store import Store
    from segweave.datasets import prepare

    final = folder / "store"
    if not final.is_dir():
        prepare("acdc", phantoms, final)
    return Store(final)


# Training: the real command, one process per arm


def _train(
    folder: Path, store: Store, arms: Sequence[str], settings: Settings, report: Report
) -> dict[str, Run]:
    from segweave.recipes import load_recipe
    from segweave.training import Run

    runs = {arm: folder / "runs" / arm for arm in arms}
    recipe = load_recipe("demo", settings.sets)
    watch = Watch(report)

    def ended(job: Job, code: int) -> None:
        watch.remove(job.name, "")
        _check(job, code)

    LocalProcesses(at_once=min(2, os.cpu_count() or 1)).run(
        [_job(folder, store, arm, settings) for arm in arms if not finished(runs[arm])],
        began=lambda job: watch.add(job.name, runs[job.name], recipe),
        ended=ended,
        tick=watch.look,
    )
    return {arm: Run(run) for arm, run in runs.items()}


def _job(folder: Path, store: Store, arm: str, settings: Settings) -> Job:
    call = ["train", "demo", "--quiet", "--device", "cpu"]
    call += ["--store", str(store.path), "--out", str(folder / "runs" / arm)]
    sets = [f"arm={arm}", *ARMS[arm], *settings.sets]
    call += [part for text in sets for part in ("--set", text)]
    return Job(arm, (tuple(call),), folder / "logs" / f"{arm}.txt")


def _check(job: Job, code: int) -> None:
    if code != 0:
        raise failure(f"training the arm {job.name}", job, code)


# Scores, figure, report


def _scores(runs: Mapping[str, Run], protocol: str) -> list[Evaluation]:
    from segweave.evaluation import read_evaluation
    from segweave.workflow.evaluate import evaluate

    scored = []
    for run in runs.values():
        folder = run.folder / "evaluation" / protocol
        if (folder / "manifest.json").is_file():
            scored.append(read_evaluation(folder))
        else:
            scored.append(evaluate(run, protocol=protocol, device="cpu", force=True))
    return scored


def _show(
    folder: Path,
    store: Store,
    runs: Mapping[str, Run],
    scores: Mapping[str, list[Evaluation]],
    settings: Settings,
) -> Demo:
    from segweave.evaluation import summary_table
    from segweave.report import (
        Image,
        Page,
        Section,
        panels,
        prediction_panel,
        save_figure,
        write_page,
    )
    from segweave.report.figures import as_png
    from segweave.report.run_report import curves_section, scores_section

    tables = tuple(
        summary_table(evaluations, heading=f"Protocol {protocol}, test cases")
        for protocol, evaluations in scores.items()
    )
    tested = sorted({row.case for row in scores["clean"][0].rows})
    one_per_patient = {store.groups[id]: id for id in reversed(tested)}
    predictions = {arm: run.folder / "predictions" / "clean" for arm, run in runs.items()}
    rows = panels(store, sorted(one_per_patient.values())[:3], predictions, store.target)
    panel = prediction_panel(rows, store.target)
    figure = save_figure(panel, folder / "figure.png")
    caption = (
        "Test cases: the image, the truth, and what each arm predicts. One row per patient, the "
        "slice in which the rarest class is largest; below, mean Dice of that slice."
    )
    sections = [
        Section("What each arm predicts", images=[Image(as_png(panel), caption)]),
        *(scores_section(evaluations) for evaluations in scores.values()),
        curves_section(runs),
        Section(
            "Recipe",
            ["That of the first arm; the others differ in arm, context and the window's length."],
            code=next(iter(runs.values())).recipe.to_yaml(),
        ),
    ]
    facts = [
        ("data", f"{settings.patients} synthetic patients, {len(store.ids)} stacks"),
        ("arms", ", ".join(runs)),
        ("seed", str(next(iter(runs.values())).recipe.seed)),
    ]
    page = Page("segweave demo", sections, warning=f"{HEADING}. {_WHY}", facts=facts)
    report = write_page(page, folder / REPORT)
    done = Demo(folder, tables, figure, report, folder / EXAMPLES)
    write_text(folder / "table.md", done.markdown)
    return done
