"""Low-dose CT: what denoising is worth, and what it is worth before segmentation:
`python benchmarks/denoising.py WORK [--slab CT.nii.gz] [--tiny]`.

1. Abdominal phantoms are scanned at three doses (`segweave prepare low-dose`).
2. RED-CNN and the Swin denoiser are trained on all doses together, each with every seed.
3. PSNR, SSIM and RMSE of the test phantoms, and of a real CT slab that no network has seen, at each
   dose: noisy, non-local means of scikit-image (strength chosen on validation cases), networks.
4. A UNet is trained to segment full-dose phantoms, another one noisy ones; both are scored at each
   dose with and without a denoiser before them, and `compare` says what the difference is.

Everything is kept in WORK: after an interruption the same command goes on. Prints the Markdown of
benchmarks/denoising.md; about three hours on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from skimage.restoration import denoise_nl_means, estimate_sigma

import segweave
from segweave.data.case import Case
from segweave.data.low_dose import Scanner, low_dose
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.datasets import prepare
from segweave.evaluation import Evaluation, evaluate_cases, read_evaluation, summarise
from segweave.formats import read_case
from segweave.phantoms.abdomen import write_abdomen
from segweave.prediction import Session
from segweave.runs.run_folder import Run

DOSES = (0.25, 0.1, 0.05)
NETWORKS = ("red-cnn", "swin-denoiser")
STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.3, 1.7)
SPLIT = "seed-0"
PHOTONS = 1e6
SEGMENTERS = {"full": "trained on full dose", "noisy": "trained on all three doses"}
Denoiser = Callable[[Case], np.ndarray]


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    cases: int = 24
    side: int = 96
    slices: int = 16
    epochs: int = 12
    segmenter_epochs: int = 24
    seeds: tuple[int, ...] = (0, 1, 2)
    sets: tuple[str, ...] = ()

    @property
    def segmenter_sets(self) -> list[str]:
        """Overrides of the segmenter's recipe."""
        return [
            f"training.epochs={self.segmenter_epochs}",
            f"input.size=[{self.side}, {self.side}]",
        ]


TINY = Size(
    cases=6,
    side=48,
    slices=3,
    epochs=1,
    segmenter_epochs=1,
    seeds=(0, 1, 2),
    sets=("input.size=[24, 24]",),
)
TINY_OPTIONS = {"red-cnn": "network.options.width=4", "swin-denoiser": "network.options.width=8"}


class Work:
    """The folder of everything, and what is in it."""

    def __init__(self, folder: Path, size: Size, slab: Path | None) -> None:
        self.folder, self.size, self.slab = folder, size, slab
        if not (folder / "raw").is_dir():
            write_abdomen(folder / "raw", size.cases, size=size.side, slices=size.slices)
        if not (folder / "low-dose").is_dir():
            prepare(
                "low-dose", folder / "raw", folder / "low-dose", dose=DOSES, photons=PHOTONS,
                fractions=(0.5, 0.15, 0.35),
            )  # fmt: skip
        self.noisy = Store(folder / "low-dose")
        if not (folder / "synapse").is_dir():
            prepare("synapse", folder / "raw", folder / "synapse")
        self.labelled = Store(folder / "synapse")

    def ids(self, part: str, dose: float) -> list[str]:
        """The low-dose cases of a part at a dose."""
        ending = f"@{dose:g}"
        return [id for id in self.noisy.split(SPLIT, part) if id.endswith(ending)]

    def labelled_case(self, id: str) -> Case:
        """The phantom of a low-dose case with its organs: `img0001@0.1` → case0001."""
        return self.labelled.case(id.partition("@")[0].replace("img", "case"))

    def train(self, recipe: str, store: Path, name: str, seed: int, sets: Sequence[str]) -> Run:
        """The finished run of that name and seed."""
        folder = self.folder / "runs" / f"{name}-{seed}"
        if not (folder / "model" / "card.json").is_file():
            print(f"training {folder.name}", file=sys.stderr, flush=True)
            segweave.train(recipe, store, folder, sets=[*sets, f"arm={name}"], seed=seed)
        return Run(folder)

    def denoisers(self) -> dict[str, dict[int, Session]]:
        """Network → seed → what denoises."""
        found: dict[str, dict[int, Session]] = {}
        for network in NETWORKS:
            sets = [f"training.epochs={self.size.epochs}", f"data.split={SPLIT}", *self.size.sets]
            if self.size.sets:
                sets.append(TINY_OPTIONS[network])
            for seed in self.size.seeds:
                run = self.train(
                    f"low-dose-{network}", self.folder / "low-dose", network, seed, sets
                )
                found.setdefault(network, {})[seed] = segweave.load(run.folder).session()
        return found

    def segmenters(self) -> dict[str, dict[int, Session]]:
        """What they were trained on → seed → what segments."""
        found: dict[str, dict[int, Session]] = {}
        for kind in SEGMENTERS:
            store = self._segmentation_store(kind)
            for seed in self.size.seeds:
                sets = [*self.size.segmenter_sets, f"data.split={SPLIT}", "input.clip=[-160, 240]"]
                run = self.train("acdc-unet-128", store, f"unet-{kind}", seed, sets)
                found.setdefault(kind, {})[seed] = segweave.load(run.folder).session()
        return found

    def _segmentation_store(self, kind: str) -> Path:
        """Full-dose or noisy phantoms with their organs, in the split of the low-dose store."""
        path = self.folder / f"organs-{kind}"
        if path.is_dir():
            return path
        with StoreWriter(path, f"organs-{kind}", self.labelled.target) as writer:
            chosen: dict[str, list[str]] = {}
            for part, ids in self.noisy.splits[SPLIT].items():
                if part == "test":
                    continue
                for id in ids:
                    case = self.labelled_case(id)
                    if kind == "noisy":
                        image = np.asarray(self.noisy.case(id).image)
                        case = replace(case, id=id, image=image)
                    if case.id not in chosen.setdefault(part, []):
                        writer.add(case)
                        chosen[part].append(case.id)
            writer.finish({SPLIT: chosen})
        return path


def non_local_means(strength: float) -> Denoiser:
    """Slice by slice; the filter's h is `strength` times the noise that is estimated in a slice."""

    def denoise(case: Case) -> np.ndarray:
        image = np.asarray(case.image, np.float32)
        result = np.empty_like(image)
        for index, (plane,) in enumerate(image):
            sigma = float(estimate_sigma(plane))
            result[index, 0] = denoise_nl_means(
                plane, patch_size=5, patch_distance=6, h=strength * sigma, sigma=sigma,
                fast_mode=True,
            )  # fmt: skip
        return result

    return denoise


def as_given(case: Case) -> np.ndarray:
    return np.asarray(case.image, np.float32)


def by_session(session: Session) -> Denoiser:
    return lambda case: session.predict(case).labels


def scored(
    folder: Path,
    cases: Callable[[], Iterator[tuple[Case, np.ndarray]]],
    target: TargetSpec,
    arm: str,
    seed: int | None = None,
) -> Evaluation:
    """The evaluation in `folder`, made where it is not there."""
    if not (folder / "manifest.json").is_file():
        evaluate_cases(cases(), folder, target=target, arm=arm, seed=seed)
    return read_evaluation(folder)


def best_strength(work: Work, dose: float) -> float:
    """The strength of non-local means with the highest PSNR on the validation cases."""
    file = work.folder / "strengths" / f"{dose:g}.txt"
    if not file.is_file():
        values = {}
        for strength in STRENGTHS:
            denoise = non_local_means(strength)
            squared = []
            for id in work.ids("valid", dose):
                case = work.noisy.case(id)
                off = np.clip(denoise(case), -160, 240) - np.clip(case.label, -160, 240)
                squared.append(float((off**2).mean()))
            values[strength] = float(np.mean(squared))
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{min(values, key=lambda one: values[one])}")
    return float(file.read_text())


def arms_of(
    work: Work, networks: dict[str, dict[int, Session]], dose: float
) -> list[tuple[str, int | None, Denoiser]]:
    arms: list[tuple[str, int | None, Denoiser]] = [
        ("noisy", None, as_given),
        ("non-local means", None, non_local_means(best_strength(work, dose))),
    ]
    arms += [
        (name, seed, by_session(session))
        for name, of_seeds in networks.items()
        for seed, session in of_seeds.items()
    ]
    return arms


def image_quality(
    work: Work,
    networks: dict[str, dict[int, Session]],
    what: str,
    cases: Sequence[Case],
    dose: float,
) -> list[Evaluation]:
    """Every arm's evaluation of these cases, printed as rows of the table."""
    evaluations = []
    for arm, seed, denoise in arms_of(work, networks, dose):
        name = f"{what}-{dose:g}/{arm}" + ("" if seed is None else f"-{seed}")

        def predicted(denoise: Denoiser = denoise) -> Iterator[tuple[Case, np.ndarray]]:
            for case in cases:
                yield case, denoise(case)

        folder = work.folder / "scores" / name
        evaluations.append(scored(folder, predicted, work.noisy.target, arm, seed))
    for arm in summarise(evaluations):
        mean = {metric: value.mean for metric, value in arm.macro.overlaps.items()}
        print(
            f"| {what} | {dose:g} | {arm.arm} | {mean['psnr']:.2f} | {mean['ssim']:.4f} "
            f"| {mean['rmse']:.2f} | {arm.groups} | {arm.runs} |"
        )
    return evaluations


def verdicts(evaluations: Sequence[Evaluation], reference: str) -> list[str]:
    return segweave.compare(list(evaluations), reference).verdicts


def quality_tables(work: Work, networks: dict[str, dict[int, Session]]) -> None:
    print("\n| images | dose | arm | PSNR dB | SSIM | RMSE HU | patients | trainings |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    sentences = []
    for dose in DOSES:
        cases = [work.noisy.case(id) for id in work.ids("test", dose)]
        evaluations = image_quality(work, networks, "phantom", cases, dose)
        sentences += [f"- dose {dose:g}: {text}" for text in verdicts(evaluations, "red-cnn")]
    if work.slab is not None:
        slab = read_case(work.slab, id="slab", with_label=False)
        if work.size == TINY:
            slab = replace(slab, image=slab.image[:2], source_grid=None)
        for dose in DOSES:
            case = low_dose(slab, dose, scanner=Scanner(photons=PHOTONS))
            image_quality(work, networks, "CT slab", [case], dose)
    print("\nPhantom, by `segweave compare`, primary metric PSNR:\n")
    print("\n".join(sentences))


def segmentation_tables(work: Work, networks: dict[str, dict[int, Session]]) -> None:
    print("\n| segmenter | dose | before it | Dice | patients | trainings |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    sentences = []
    for kind, of_seeds in work.segmenters().items():
        for dose in (1.0, *DOSES):
            evaluations = []
            firsts = ("nothing", *(NETWORKS if dose < 1 else ()))
            for first in firsts:
                for seed, session in of_seeds.items():
                    both = session if first == "nothing" else session.after(networks[first][seed])
                    name = f"organs-{kind}-{dose:g}/{first}-{seed}"

                    def predicted(
                        both: Session = both, dose: float = dose
                    ) -> Iterator[tuple[Case, np.ndarray]]:
                        for id in work.ids("test", DOSES[0] if dose == 1 else dose):
                            case = work.labelled_case(id)
                            if dose < 1:
                                case = replace(case, image=np.asarray(work.noisy.case(id).image))
                            yield case, both.predict(case).labels

                    folder = work.folder / "scores" / name
                    evaluations.append(scored(folder, predicted, work.labelled.target, first, seed))
            for arm in summarise(evaluations):
                value = arm.macro.overlaps["dice"]
                print(
                    f"| {SEGMENTERS[kind]} | {dose:g} | {arm.arm} | {value.mean:.4f} "
                    f"| {arm.groups} | {arm.runs} |"
                )
            if len(firsts) > 1:
                sentences += [
                    f"- {SEGMENTERS[kind]}, dose {dose:g}: {text}"
                    for text in verdicts(evaluations, "nothing")
                ]
    print("\nBy `segweave compare`, against nothing before the segmenter:\n")
    print("\n".join(sentences))


def introduction(size: Size) -> str:
    """What was measured, for the head of the page."""
    doses = ", ".join(f"{dose:g}" for dose in DOSES)
    return f"""# Denoising of low-dose CT

`python benchmarks/denoising.py WORK --slab CT.nii.gz > benchmarks/denoising.md`

Low dose is simulated from full dose (docs/explanation/images.md) with {PHOTONS:g} photons per ray,
at {doses} of the dose. Phantoms: {size.cases} synthetic abdomens of {size.slices} slices of
{size.side}×{size.side} pixels, half of them for training; they are not patients, and their organs
are easier than real ones. The slab is one real CT of 30 slices of 3 mm voxels that no network was
trained on, so that its rows show what is left when the images are of another kind. Scores count
-160 to 240 HU. Networks: the recipes `low-dose-red-cnn` and `low-dose-swin-denoiser`, which are
smaller than the published sizes, {size.epochs} epochs, seeds {", ".join(map(str, size.seeds))}.
Non-local means: strength chosen by PSNR on the validation phantoms for each dose."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--slab", type=Path, help="a real CT volume in Hounsfield units")
    parser.add_argument("--tiny", action="store_true", help="to see that it runs; no evidence")
    given = parser.parse_args()
    size = TINY if given.tiny else Size()
    print(introduction(size))
    if given.tiny:
        print("\n**In miniature, to see that it runs: the numbers mean nothing.**")
    work = Work(given.work, size, given.slab)
    networks = work.denoisers()
    quality_tables(work, networks)
    segmentation_tables(work, networks)


if __name__ == "__main__":
    main()
