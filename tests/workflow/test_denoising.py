"""A target of kind image through store, training, prediction, evaluation and comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import segweave
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.datasets.export_nnunet import write_nnunet
from segweave.errors import InputError, UsageError
from segweave.evaluation import read_evaluation, score_case, summary_table
from segweave.formats import read_case
from segweave.phantoms.abdomen import write_abdomen
from segweave.prediction import Predictor, predict_files
from segweave.recipes import load_recipe
from segweave.recipes.build import build_network
from segweave.runs.run_folder import Run
from segweave.training.objective import WeightedLoss

pytest.importorskip("skimage")
TINY = (
    "network.options.width=4",
    "input.size=[24,24]",
    "training.epochs=2",
    "training.validate_every=100",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans, the store of low-dose scans, and a training of seconds on it."""
    folder = tmp_path_factory.mktemp("low-dose")
    write_abdomen(folder / "raw", 3, size=32, slices=3)
    report = prepare(
        "low-dose", folder / "raw", folder / "store", dose=[0.25, 0.1], views=24,
        fractions=(0.34, 0.33, 0.33),
    )  # fmt: skip
    assert (report.cases, report.groups) == (6, 3)
    segweave.train(
        "low-dose-red-cnn", folder / "store", folder / "run", sets=TINY, seed=0, device="cpu"
    )
    return folder


def test_the_store_holds_noisy_and_true_images(made: Path) -> None:
    store = Store(made / "store")
    assert (store.target.kind, store.target.unit, store.target.range) == (
        "image",
        "HU",
        (-160, 240),
    )
    for parts in store.splits.values():
        for ids in parts.values():
            # Both doses of a scan are in one part.
            assert len(ids) == 2 * len({store.groups[id] for id in ids})
    spread = []
    for dose in (0.25, 0.1):
        case = store.case(f"img0001@{dose}") if "img0001@0.25" in store.ids else None
        case = case or store.case(f"{store.ids[0].partition('@')[0]}@{dose}")
        assert case.label is not None
        assert case.label.shape == case.image.shape
        assert case.image.dtype == case.label.dtype == np.int16
        assert case.attributes["dose"] == dose
        spread.append(float((case.image - case.label.astype(float)).std()))
    assert 0 < spread[0] < spread[1]


def test_a_training_chooses_and_reports_by_psnr(made: Path) -> None:
    run = Run(made / "run")
    assert run.finished
    row = run.metrics[-1]
    assert 0 < row["validation_psnr"] < 100
    assert run.model_card["target"]["unit"] == "HU"
    assert "best, PSNR" in (made / "run/report.html").read_text()


def test_a_run_is_scored_in_hounsfield_units(made: Path) -> None:
    done = segweave.evaluate(made / "run", device="cpu")
    manifest = done.manifest
    assert (manifest.protocol, manifest.primary, manifest.kind) == ("clean-images", "psnr", "image")
    store = Store(made / "store")
    predictor = segweave.load(made / "run", device="cpu")
    case = store.case(next(row.case for row in done.rows))
    image = segweave.predict(predictor, case).labels
    assert (image.shape, image.dtype) == (case.image.shape, np.float32)
    truth = np.asarray(case.label, float)
    off = np.clip(image[1, 0], -160, 240) - np.clip(truth[1, 0], -160, 240)
    (row,) = (
        r for r in done.rows
        if (r.case, r.score.slice, r.score.metric) == (case.id, 1, "rmse")
    )  # fmt: skip
    assert row.score.unit == "HU"
    assert row.score.value == pytest.approx(np.sqrt((off**2).mean()))
    (psnr,) = (
        r.score.value for r in done.rows
        if (r.case, r.score.slice, r.score.metric) == (case.id, 1, "psnr")
    )  # fmt: skip
    assert psnr == pytest.approx(20 * np.log10(400 / row.score.value))
    table = summary_table([read_evaluation(done.folder)])
    assert table.header[1].startswith("PSNR dB, mean")
    assert "RMSE HU" in table.header
    assert "psnr" in (made / "run/evaluation/clean/cases.csv").read_text()


def test_arms_of_images_are_compared_by_psnr(made: Path) -> None:
    other = segweave.train(
        "low-dose-red-cnn", made / "store", made / "wider",
        sets=[*TINY, "network.options.width=5", "arm=wider"], device="cpu",
    )  # fmt: skip
    first = made / "run/evaluation/clean"
    if not first.is_dir():
        segweave.evaluate(made / "run", device="cpu")
    result = segweave.compare([first, segweave.evaluate(other, device="cpu")], "wider", margin=2.0)
    assert (result.metric, result.quantity) == ("psnr", "PSNR dB")
    assert "PSNR dB against wider" in result.verdicts[0]


@pytest.mark.parametrize("name", ["red-cnn", "swin-denoiser"])
def test_shipped_recipes_return_hounsfield_units(name: str) -> None:
    recipe = load_recipe(f"low-dose-{name}", ["network.options.width=8"])
    target = TargetSpec(kind="image", names=("CT",), unit="HU", range=(-160, 240))
    WeightedLoss(recipe.training.loss, target)
    predictor = Predictor(build_network(recipe, 1, target).eval(), recipe.input, target)
    generator = np.random.default_rng(0)
    image = generator.integers(-1000, 1500, (2, 1, 50, 40)).astype(np.int16)
    given = Case("scan", "patient", image, stack="space", spacing=(3.0, 1.0, 1.0))
    values = segweave.predict(predictor, given).labels
    # An untrained network adds little: what comes out is the image in its unit.
    assert abs(values - image).mean() < 40
    assert np.corrcoef(values.ravel(), image.ravel())[0, 1] > 0.99


def test_files_come_back_in_hounsfield_units_and_geometry(made: Path, tmp_path: Path) -> None:
    predictor = segweave.load(made / "run", device="cpu")
    scan = next((made / "raw/img").iterdir())
    report = predict_files(predictor, scan, tmp_path / "out")
    assert not report.failures
    written, source = nib.load(report.files[0].labels), nib.load(scan)
    assert report.files[0].labels.name == scan.name
    assert written.shape == source.shape
    assert np.array_equal(written.affine, source.affine)
    assert written.get_data_dtype() == np.int16
    case = read_case(scan, with_label=False)
    values = read_case(report.files[0].labels, with_label=False).image
    assert np.array_equal(values, np.rint(segweave.predict(predictor, case).labels))
    # An untrained denoiser returns about what it was given.
    assert abs(values - np.clip(case.image, -1024, 3071)).mean() < 60
    # Real numbers stay real numbers.
    real = nib.Nifti1Image(source.get_fdata().astype(np.float32), source.affine)
    nib.save(real, tmp_path / "real.nii.gz")
    report = predict_files(predictor, tmp_path / "real.nii.gz", tmp_path / "more", overlays=False)
    assert nib.load(report.files[0].labels).get_data_dtype() == np.float32


def test_a_dicom_series_becomes_an_image_in_its_geometry(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.formats.test_dicom import write_series

    series = write_series(tmp_path / "series")
    predictor = segweave.load(made / "run", device="cpu")
    report = predict_files(predictor, series, tmp_path / "out")
    assert not report.failures
    case, written = read_case(series), read_case(report.files[0].labels, with_label=False)
    assert report.files[0].labels.name == "series.nii.gz"
    assert written.affine == pytest.approx(case.affine)
    assert written.image.shape == case.image.shape
    assert np.array_equal(written.image, np.rint(segweave.predict(predictor, case).labels))


def test_images_are_denoised_before_they_are_segmented(made: Path) -> None:
    from tests.prediction.tiny import by_brightness

    denoiser = segweave.load(made / "run", device="cpu")
    segments = by_brightness((32, 32))
    case = read_case(next((made / "raw/img").iterdir()), with_label=False)
    both = replace(segments, denoise=denoiser)
    cleaned = np.rint(segweave.predict(denoiser, case).labels).astype(np.int16)
    by_hand = segweave.predict(segments, replace(case, image=cleaned))
    at_once = segweave.predict(both, case)
    assert np.array_equal(at_once.labels, by_hand.labels)
    assert at_once.case is case
    assert "denoised_by" in both.session().card
    with pytest.raises(UsageError, match="a model that predicts an image"):
        replace(denoiser, denoise=segments).session()


def test_what_does_not_fit_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="l1, mse"):
        segweave.train(
            "low-dose-red-cnn", made / "store", tmp_path / "a",
            sets=[*TINY, 'training.loss=[{"name": "dice"}]'], device="cpu",
        )  # fmt: skip
    with pytest.raises(UsageError, match="clean-images"):
        segweave.evaluate(made / "run", protocol="penalised", out=tmp_path / "b", device="cpu")
    with pytest.raises(UsageError, match="a metric of images"):
        segweave.evaluate(made / "run", metrics=["dice"], out=tmp_path / "c", device="cpu")
    with pytest.raises(UsageError, match="images as targets"):
        write_nnunet(Store(made / "store"), tmp_path / "d")
    case = Store(made / "store").case(Store(made / "store").ids[0])
    with pytest.raises(InputError, match="images of one shape"):
        score_case(
            np.zeros((1, 1, 4, 4)), np.asarray(case.label), spacing=None, stack="space",
            target=Store(made / "store").target,
        )  # fmt: skip
